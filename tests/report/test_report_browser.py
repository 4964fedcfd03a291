"""The page in a real browser: it draws, the console stays empty, tokens show their numbers, and all rollouts can be read.

Skipped where `tests.browser` finds no browser.
"""

import pyarrow.parquet as pq
import pytest
from synthetic_run import rollout, write_rollouts

from amrsd_jax import report
from tests.browser import find, opened, point_at

pytestmark = pytest.mark.slow


def shown_numbers(browser):
    """The heading of the tooltip and its values by name."""
    tip = find(browser, "#tip")[0]
    assert tip.is_displayed()
    heading, *lines = tip.text.replace("−", "-").splitlines()
    return heading, dict(zip(lines[::2], map(float, lines[1::2]), strict=True))


def fills(browser):
    return browser.execute_script("return [...document.querySelectorAll('.token')].map(t => t.style.background)")


def test_tokens_answer_to_pointer_and_keys(finished, browser):
    from selenium.webdriver import ActionChains, Keys

    opened(browser, finished / "report.html")
    article = find(browser, "article:has(.failed)")[0]
    number = int(article.find_element("tag name", "h4").text.split("Row ")[1].split(",")[0])
    row = pq.read_table(finished / "rollouts" / "step_00001.parquet").to_pylist()[number]
    spans = article.find_elements("css selector", ".token")
    assert article.find_elements("css selector", ".wrong .token") == spans[6:12]

    def wanted(i):
        columns = {"student log p": "student_logprobs", "teacher log p": "teacher_logprobs", "teacher gap": "gap"}
        columns |= {"token advantage": "token_advantage", "student entropy": "student_entropy"}
        values = {name: row[column][i] for name, column in columns.items()}
        return pytest.approx(values | {"weight": row["token_advantage"][i] / row["advantage"]}, abs=8e-4)

    point_at(browser, spans[10])
    assert shown_numbers(browser) == (f'"{row["token_text"][10]}"', wanted(10))
    browser.execute_script("arguments[0].focus()", spans[0])
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert shown_numbers(browser) == (f'"{row["token_text"][1]}"', wanted(1))
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not find(browser, "#tip")[0].is_displayed()
    assert browser.get_log("browser") == []


def test_all_rollouts_can_be_paged_through_from_the_first_step_on(finished, browser):
    opened(browser, finished / "report.html")
    assert find(browser, "#controls select")[0].get_attribute("value") == "0"
    assert find(browser, "input[value=weight]")[0].is_selected()
    seen = []
    while True:
        seen += [title.text for title in find(browser, "article h4")]
        following = find(browser, "button[name=next]")[0]
        if not following.is_enabled():
            break
        following.click()
    assert len(set(seen)) == 24
    before = fills(browser)
    browser.execute_script("document.querySelector('input[value=credit]').click()")
    assert fills(browser) != before
    for value, last in (("failed", "8 of 12"), ("correct", "8 of 12"), ("all", "8 of 24")):
        browser.execute_script(f"document.querySelector('input[value={value}]').click()")
        assert find(browser, ".pager span")[0].text.endswith(last)


def test_a_run_without_weights_opens_with_its_gaps(workdir, browser, rng):
    """As a rule that only distils has it: the advantage of every token is 0."""
    write_rollouts(workdir, 1, [rollout(1, row, rng) | {"token_advantage": [0.0] * 16} for row in range(8)])
    opened(browser, report.write(workdir))
    assert find(browser, "input[value=gap]")[0].is_selected()


def test_a_chart_shows_the_values_under_the_pointer(finished, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, finished / "report.html")
    point_at(browser, find(browser, ".chart svg")[0])
    tip = WebDriverWait(browser, 5).until(lambda b: next(iter(find(b, "#vg-tooltip-element.visible")), None))
    assert "step" in tip.text and "rollouts" in tip.text and " to " in tip.text


def test_hostile_texts_stay_texts(workdir, browser, rng):
    hostile = "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>"
    row = rollout(1, 1, rng) | {"reflection": hostile, "question": hostile}
    write_rollouts(workdir, 1, [row | {"token_text": [hostile] * 16}])
    opened(browser, report.write(workdir))
    assert find(browser, ".token")[0].text == hostile and hostile in find(browser, ".reflection")[0].text
    assert browser.execute_script("return window.hacked") is None and not find(browser, "img")
    assert browser.get_log("browser") == []


def test_long_answers_unfold_and_the_page_opens_in_seconds(long, browser):
    opened(browser, long)
    timing = "const [e] = performance.getEntriesByType('navigation'); return e.loadEventEnd - e.startTime"
    assert browser.execute_script(timing) < 10_000
    assert not find(browser, "details.question")[0].get_attribute("open")
    article = find(browser, "article")[0]
    article.find_element("css selector", "button.more").click()
    assert len(article.find_elements("css selector", ".token")) == 8192


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_the_window(finished, browser, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(browser, finished / "report.html")
    assert len(find(browser, ".chart svg")) > 20
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
