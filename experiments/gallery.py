"""Takes the pictures of docs/gallery.md: parts of a run's report and of a comparison of methods on its rollouts.

Command:   python -m experiments.gallery --report=runs/quickstart/report.html --compare=runs/compare/compare.html
Needs:     Chromium, its driver, and selenium (pip install -e '.[test]').
"""

import base64
import shutil
from pathlib import Path

from absl import app, flags

_REPORT = flags.DEFINE_string("report", None, "Report of a run.", required=True)
_COMPARE = flags.DEFINE_string("compare", None, "Page of amrsd_jax.compare.", required=True)
_OUT = flags.DEFINE_string("out", "docs/gallery", "Folder of the pictures.")

SIZE = {"width": 1280, "height": 860, "deviceScaleFactor": 1, "mobile": False}
PARTS = {"report": ("top", "tokens", "gap"), "compare": ("tokens", "where")}  # ids of their sections, or the top


def main(_) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    for page, path in {"report": _REPORT.value, "compare": _COMPARE.value}.items():
        browser.get(Path(path).resolve().as_uri())
        for part in PARTS[page]:
            browser.execute_script("(document.getElementById(arguments[0]) ?? document.body).scrollIntoView()", part)
            browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 80})
            (out / f"{page}_{part}.webp").write_bytes(base64.b64decode(picture["data"]))
    browser.quit()


if __name__ == "__main__":
    app.run(main)
