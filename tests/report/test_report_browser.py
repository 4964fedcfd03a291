"""The page in a real browser: it draws, the console stays empty, a token shows its numbers under the pointer.

Skipped where `tests.browser` finds none.
"""

import pyarrow.parquet as pq
import pytest
from synthetic_run import rollout, write_rollouts

from amrsd_jax import report
from tests.browser import find, point_at


def shown_numbers(browser):
    """What the tooltip says: its heading, and its values by name."""
    tip = find(browser, "#tip")[0]
    assert tip.is_displayed()
    heading, *lines = tip.text.replace("−", "-").splitlines()
    return heading, dict(zip(lines[::2], map(float, lines[1::2]), strict=True))


def test_the_page_draws_and_answers_to_pointer_and_keys(workdir, browser):
    from selenium.webdriver import ActionChains, Keys

    browser.get(report.write(workdir).as_uri())
    assert len(find(browser, "svg.chart")) == 21 + 3
    assert len(find(browser, "article")) == 12 and len(find(browser, ".token")) == 12 * 16
    assert find(browser, "#controls select")[0].text.startswith("0") and not find(browser, "#tip:not([hidden])")

    failed = find(browser, "article:has(.failed)")[0]
    number = int(failed.find_element("tag name", "h4").text.split("Row ")[1].split(",")[0])
    row = pq.read_table(workdir / "rollouts" / "step_00045.parquet").to_pylist()[number]
    index = row["first_error_start"] + 4
    tokens = failed.find_elements("css selector", ".token")
    assert failed.find_elements("css selector", ".wrong .token") == tokens[index - 4 : index + 2]

    def wanted(i):
        values = {name: row[name][i] for name in ("logp_student", "logp_teacher", "gap")}
        values |= {
            "weight": row["token_advantage"][i] / row["advantage"],
            "credit": row["token_advantage"][i],
        }
        names = ["student log p", "teacher log p", "gap", "weight", "token advantage", "entropy"]
        values = dict(zip(names, [*values.values(), row["entropy"][i]], strict=True))
        return pytest.approx(values, abs=6e-4)  # shown with three decimals

    point_at(browser, tokens[index])
    heading, values = shown_numbers(browser)
    assert heading == f'"{row["token_text"][index]}"'
    assert values == wanted(index)

    browser.execute_script("arguments[0].focus()", tokens[0])
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    heading, values = shown_numbers(browser)
    assert heading == f'"{row["token_text"][1]}"' and values == wanted(1)
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not find(browser, "#tip")[0].is_displayed()

    chart = find(browser, "svg.chart")[3]
    point_at(browser, chart)
    heading, values = shown_numbers(browser)
    assert heading.startswith("step ") and list(values) == ["entropy"]

    point_at(browser, find(browser, ".timelines .chart")[1])  # its middle, at 4.74 s
    wanted_there = ["phase", "sample, 0.01 s to 6 s", "rollouts", "16 of 32", "reflections", "12 of 32"]
    assert find(browser, "#tip")[0].text.splitlines()[1:] == wanted_there

    for value, articles in (("failed", 6), ("correct", 6), ("all", 12)):
        browser.execute_script(f"document.querySelector('input[value={value}]').click()")
        assert len(find(browser, "article")) == articles
    before = tokens_colours(browser)
    browser.execute_script("document.querySelector('input[value=weight]').click()")
    assert tokens_colours(browser) != before
    assert browser.get_log("browser") == []


def tokens_colours(browser):
    return browser.execute_script("return [...document.querySelectorAll('.token')].map(t => t.style.background)")


def test_hostile_texts_stay_texts(workdir, browser, rng):
    hostile = "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>"
    row = rollout(45, 1, rng) | {"reflection_status": "ok", "reflection": hostile, "question": hostile}
    write_rollouts(workdir, 45, [row | {"token_text": [hostile] * 16}])
    browser.get(report.write(workdir).as_uri())
    assert find(browser, ".token")[0].text == hostile and hostile in find(browser, ".reflection")[0].text
    assert browser.execute_script("return window.hacked") is None and not find(browser, "img")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_the_window(workdir, browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(report.write(workdir).as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
