"""The page of compare in a real browser: it draws, a token is marked in every method, keys move, nothing is loaded."""

import dataclasses

import pytest

from amrsd_jax.compare import write
from tests.browser import find, point_at

pytestmark = pytest.mark.slow


def shown(browser):
    """What the panels say of the marked token."""
    return [output.text.replace("−", "-") for output in find(browser, ".panel output")]


def wanted(comparison, row, token):
    said = []
    for one in comparison.applied:
        gap = one.scores.logp_teacher[row, token] - one.scores.logp_student[row, token]
        values = [one.credit.token_advantage[row, token]]
        values.append(values[0] - one.credit.advantage[row])
        credit, added = (pytest.approx(value, abs=2e-3) for value in values)
        said.append([pytest.approx(gap, abs=2e-3) if one.scores.scored[row] else None, credit, added])
    return said


def numbers(line):
    return [None if word == "–" else float(word) for word in line.replace(" · ", " ").split()[1::2]]


def test_methods_side_by_side(comparison, browser, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    browser.get(write(comparison, tmp_path).as_uri())
    methods = len(comparison.applied)
    assert len(find(browser, ".panel")) == methods
    option = find(browser, "#controls option")[0].text
    assert option.startswith("failed · row ")
    row = int(option.split(" · ")[1].removeprefix("row "))
    start, end = comparison.rollouts.first_error[row]
    length = int(comparison.rollouts.mask[row].sum())
    assert len(find(browser, ".token")) == methods * length
    assert len(find(browser, ".wrong .token")) == methods * (end - start) > 0

    tokens = find(browser, ".panel:nth-child(3) .token")
    point_at(browser, tokens[start])
    assert len(find(browser, ".token.same")) == methods
    assert [numbers(line) for line in shown(browser)] == wanted(comparison, row, start)

    browser.execute_script("arguments[0].focus()", find(browser, ".panel:nth-child(1) .token")[0])
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
        ActionChains(browser).send_keys(key).perform()
    assert [numbers(line) for line in shown(browser)] == wanted(comparison, row, 1)
    assert (
        browser.execute_script("return document.activeElement.closest('.panel').ariaLabel")
        == comparison.applied[1].name
    )
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not find(browser, ".token.same") and set(shown(browser)) == {""}

    for colour in ("added", "gap"):
        before = colours(browser)
        browser.execute_script(f"document.querySelector('input[value={colour}]').click()")
        assert colours(browser) != before
    assert len(find(browser, ".matrix")) == 6 and len(find(browser, ".matrix tbody tr")) == 6 * methods
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
    browser.get(write(changed, tmp_path).as_uri())
    assert hostile in find(browser, "#facts")[0].text and hostile in find(browser, ".panel .reflection")[0].text
    assert find(browser, ".note")[0].text == hostile
    assert browser.execute_script("return window.hacked") is None and not find(browser, "img")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_never_wider_than_the_window(comparison, browser, tmp_path, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(write(comparison, tmp_path).as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
