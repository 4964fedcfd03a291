"""The comparison page in a real browser: it draws, a token is marked in every method, keys move, texts stay texts."""

import dataclasses

import pytest

from amrsd_jax.compare import write
from tests.browser import find, opened, point_at

pytestmark = pytest.mark.slow


def displayed(browser):
    """The gap, credit and added credit of the marked token in every panel; None for a dash."""
    lines = [
        output.text.replace("−", "-").replace(" · ", " ").split()[1::2] for output in find(browser, ".panel output")
    ]
    return [[None if word == "–" else float(word) for word in line] for line in lines]


def expected(comparison, row, token):
    result = []
    for one in comparison.applied:
        advantage, credit = one.credit.advantage[row], one.credit.token_advantage[row, token]
        gap = one.logprobs.gap[row, token] if one.logprobs.scored[row] else None
        result.append(
            [value if value is None else pytest.approx(value, abs=2e-3) for value in (gap, credit, credit - advantage)]
        )
    return result


def test_methods_side_by_side(comparison, browser, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    opened(browser, write(comparison, tmp_path))
    methods = len(comparison.applied)
    assert len(find(browser, ".panel")) == len(find(browser, ".panel .scale")) == methods
    row = int(find(browser, "#controls option")[0].text.split(" · ")[1].removeprefix("row "))
    start, end = comparison.rollouts.first_error[row]
    assert len(find(browser, ".token")) == methods * comparison.rollouts.mask[row].sum()
    assert len(find(browser, ".wrong .token")) == methods * (end - start)

    point_at(browser, find(browser, ".panel:nth-child(3) .token")[2])
    assert len(find(browser, ".token.same")) == methods
    assert displayed(browser) == expected(comparison, row, 2)

    browser.execute_script("arguments[0].focus()", find(browser, ".panel:nth-child(1) .token")[0])
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
        ActionChains(browser).send_keys(key).perform()
    assert displayed(browser) == expected(comparison, row, 1)
    focused = browser.execute_script("return document.activeElement.closest('.panel').ariaLabel")
    assert focused == comparison.applied[1].name
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not find(browser, ".token.same") and displayed(browser) == [[]] * methods

    for colour in ("credit", "gap"):
        before = colours(browser)
        browser.execute_script(f"document.querySelector('input[value={colour}]').click()")
        assert colours(browser) != before
    assert len(find(browser, "#pairs .chart svg")) == 6 and find(browser, "#gap .chart svg")
    assert len(find(browser, "#ledger tbody tr")) == methods
    assert browser.get_log("browser") == []


def colours(browser):
    return browser.execute_script("return [...document.querySelectorAll('.token')].map(t => t.style.background)")


def test_hostile_texts_stay_texts(comparison, browser, tmp_path):
    hostile = "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>"
    problems = tuple(dataclasses.replace(p, question=hostile, answer=hostile) for p in comparison.rollouts.problems)
    rollouts = dataclasses.replace(comparison.rollouts, problems=problems)
    applied = [
        dataclasses.replace(one, contexts=dataclasses.replace(one.contexts, text=(hostile,) * len(problems)))
        for one in comparison.applied
    ]
    values = comparison.values | {"notes": [hostile]}
    changed = dataclasses.replace(comparison, rollouts=rollouts, applied=applied, values=values)
    opened(browser, write(changed, tmp_path))
    assert hostile in find(browser, "#facts")[0].text and hostile in find(browser, ".panel .reflection")[0].text
    assert find(browser, ".note")[0].text == hostile
    assert browser.execute_script("return window.hacked") is None and not find(browser, "img")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_never_wider_than_the_window(comparison, browser, tmp_path, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened(browser, write(comparison, tmp_path))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert width < 1280 or browser.execute_script(wide) == 0  # tables need no scrolling
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
