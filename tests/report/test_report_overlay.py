"""The page of several runs groups them, names what differs, has final values worked by hand, and says what it leaves out."""

import json
import subprocess
import sys

import pytest
from synthetic_run import CONFIG, ENVIRONMENT, RESULTS, eval_record, train_record, write_lines

from amrsd_jax import report
from amrsd_jax.report import charts, overlay
from amrsd_jax.report.groups import LAST, OUTCOME, cell, group, read_runs, table
from tests.browser import find, opened, point_at


def make_run(folder, rule="grpo", seed=0, rate=1e-4, final=0.6, reward=0.5, steps=2, **args):
    """Writes a finished run whose rewards are 0 until its last step."""
    folder.mkdir(parents=True)
    config = CONFIG | {"seed": seed, "optimizer": {"learning_rate": rate}}
    config["credit"] = {"rule": rule, "context": f"context of {rule}", "args": args}
    results = RESULTS | {"steps": steps, "eval": {"initial": {"sampled": 0.2}, "final": {"sampled": final}}}
    for name, value in (("config", config), ("results", results), ("environment", ENVIRONMENT)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    rewards = [0.0] * (steps - 1) + [reward]
    train = [train_record(step) | {"reward/mean": value} for step, value in enumerate(rewards, start=1)]
    write_lines(folder / "metrics.jsonl", [eval_record(0, 0.2), *train, eval_record(steps, final)])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two rules by two learning rates by two seeds; the second seed ends 0.2 higher."""
    out = tmp_path_factory.mktemp("overlay")
    return [
        make_run(
            out / f"{rule}_{rate}_{seed}", rule, seed, rate, final=base + 0.2 * seed, reward=0.3 + 0.4 * seed, **args
        )
        for rule, args, base in (("grpo", {}, 0.5), ("amrsd", {"lam": 0.2}, 0.7))
        for rate in (1e-4, 3e-4)
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return report.write_overlay(runs, tmp_path_factory.mktemp("page") / "several.html")


def test_runs_that_differ_in_their_seed_are_one_group_named_by_what_differs(runs):
    groups = group(read_runs(runs)[0])
    assert [(one.fields, one.seeds) for one in groups] == [
        ({"credit.rule": rule, "optimizer.learning_rate": rate}, "0, 1")
        for rule in ("grpo", "amrsd")
        for rate in ("1e-4", "3e-4")
    ]
    # what the rule fills in is listed, but does not name a group
    assert groups[2].more == {"credit.args.lam": "0.2", "credit.context": "context of amrsd"}
    assert groups[0].more == {"credit.args.lam": "–", "credit.context": "context of grpo"}


def test_what_may_change_when_a_run_is_resumed_makes_no_group(tmp_path):
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for run, every in zip(runs, (5, 50), strict=True):
        config = json.loads((run / "config.json").read_text())
        evaluation = {"every": every, "benchmarks": {"more": {"every": every}}}
        (run / "config.json").write_text(json.dumps(config | {"evaluation": evaluation, "tracker": str(every)}))
    assert len(group(read_runs(runs)[0])) == 1


def test_a_field_that_does_not_follow_from_the_rule_names_the_groups(tmp_path):
    runs = [
        make_run(tmp_path / "a", "amrsd", lam=0.2),
        make_run(tmp_path / "b", "amrsd", lam=0.3),
        make_run(tmp_path / "c"),
    ]
    assert [one.name for one in group(read_runs(runs)[0])] == ["0.2, amrsd", "0.3, amrsd", "–, grpo"]


def test_the_table_by_hand(runs):
    head, rows = table(group(read_runs(runs)[0]), OUTCOME + LAST)
    assert head[:8] == [
        "credit.rule", "optimizer.learning_rate", "seeds", "accuracy before", "accuracy after", "minus the first, points",
        "steps", "minutes",
    ]  # fmt: skip
    assert rows[0][:8] == ["grpo", "1e-4", "0, 1", "20.0%", "60.0% (50.0% to 70.0%)", "–", "2", "1.7"]
    assert rows[3][4] == "80.0% (70.0% to 90.0%)"
    assert rows[0][head.index("reward")] == "0.5 (0.3 to 0.7)"  # of the last step
    assert "KL to reference" not in head  # no run has it


def test_differences_from_the_first_are_paired_by_seed(tmp_path):
    """Of 10 and 0 points: the half width is t = 12.706 with one degree of freedom times a standard error of 5."""
    finals = {"grpo": [0.5, 0.6, 0.7], "amrsd": [None, 0.7, 0.7, 0.1], "sdpo": [0.4], "rlsd": [None, None, None, 0.9]}
    runs = [
        make_run(tmp_path / f"{rule}{seed}", rule, seed=seed, final=final)
        for rule, values in finals.items()
        for seed, final in enumerate(values)
        if final is not None
    ]
    head, rows = table(group(read_runs(runs)[0]), OUTCOME)
    column = [row[head.index("minus the first, points")] for row in rows]
    assert column == ["–", "+5.0 (-58.5 to +68.5, 2 seeds)", "-10.0 (1 seed)", "–"]


def test_a_missing_value_is_not_a_zero():
    assert cell([0.5, None, 0.7], "{:.1f}".format) == "0.6 (0.5 to 0.7), 2 of 3 runs"
    assert cell([None, None], str) == "–"


def test_curves_are_means_with_bands(runs):
    groups = group(read_runs(runs)[0])
    plot = next(plot for plot in overlay.PLOTS if plot.title == "Reward")
    drawn = overlay.draw(plot, groups, dict(zip((one.name for one in groups), charts.SERIES, strict=False)))
    (points, *_) = (rows for rows in charts.spec(drawn)["datasets"].values() if "series" in rows[0])
    rows = [row for row in points if row["series"] == "grpo, 1e-4"]
    assert [(row["x"], row["y"], row["low"], row["high"]) for row in rows] == [(1, 0, 0, 0), (2, 0.5, 0.3, 0.7)]


def test_a_line_ends_where_a_run_of_its_group_ends(tmp_path):
    runs = [make_run(tmp_path / str(seed), seed=seed, steps=steps) for seed, steps in ((0, 4), (1, 3))]
    (one,) = group(read_runs(runs)[0])
    plot = next(plot for plot in overlay.PLOTS if plot.title == "Reward")
    drawn = charts.spec(overlay.draw(plot, [one], {one.name: charts.SERIES[0]}))
    (points, *_) = (rows for rows in drawn["datasets"].values() if "y" in rows[0])
    assert [row["x"] for row in points] == [1, 2, 3]


def test_more_groups_than_colours_are_drawn_by_accuracy(tmp_path):
    rates = [step / 1000 for step in range(1, 15)]
    runs = [make_run(tmp_path / f"{rate}", rate=rate, final=rate) for rate in rates]
    html = overlay.render(runs)
    assert "12 of 14 combinations" in html
    names = [one.name for one in overlay.most_accurate(group(read_runs(runs)[0]), 12)]
    assert names == ["0.003", "0.004", "0.005", *(f"{rate:g}" for rate in rates[5:])]


def test_what_is_no_run_is_named_and_the_others_are_shown(runs, tmp_path):
    damaged, unfinished, empty = tmp_path / "damaged", tmp_path / "unfinished", tmp_path / "empty"
    with (make_run(damaged, "sdpo") / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train"}\nno JSON\n')
    (make_run(unfinished, "opsd") / "results.json").unlink()
    (make_run(empty) / "metrics.jsonl").unlink()
    (tmp_path / "folder").mkdir()
    found, notes = read_runs([runs[0], runs[0], damaged, tmp_path / "folder", tmp_path / "absent", empty, unfinished])
    assert [run.workdir for run in found] == [runs[0], damaged, unfinished]
    assert [len(run.train) for run in found] == [2, 2, 2]
    wanted = (
        (damaged, "Damaged lines were left out: 2"), (tmp_path / "folder", "no config.json"),
        (tmp_path / "absent", "no such workdir"), (empty, "no step yet"), (unfinished, "unfinished"),
    )  # fmt: skip
    assert len(notes) == len(wanted)
    for note, (folder, words) in zip(notes, wanted, strict=True):
        assert str(folder) in note and words in note
    with pytest.raises(ValueError, match="no run to show.*no such workdir"):
        read_runs([tmp_path / "absent"])


def test_the_command_line(runs, tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "amrsd_jax.report", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    out = tmp_path / "several.html"
    done = call(*runs[:2], f"--out={out}", tmp_path / "absent")
    assert done.returncode == 0 and done.stdout.strip() == str(out) and "no such workdir" in out.read_text()
    for arguments, words in (
        (runs[:2], "--out"),
        ([], "--workdir=RUN"),
        ([tmp_path / "x", f"--out={out}"], "no such workdir"),
    ):
        done = call(*arguments)
        assert done.returncode == 1 and words in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_in_a_browser(page, browser, width):
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(browser, page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    drawn = find(browser, ".chart svg")
    assert len(drawn) == 8  # no KL to the reference policy
    legend = find(browser, ".legend li")
    assert [item.text for item in legend[:2]] == [
        "credit.rule=grpo, optimizer.learning_rate=1e-4",
        "credit.rule=grpo, optimizer.learning_rate=3e-4",
    ]
    swatch = legend[0].find_element("tag name", "i").value_of_css_property("background-color")
    lines = "return [...arguments[0].querySelectorAll('.mark-line path')].map(p => getComputedStyle(p).stroke)"
    strokes = browser.execute_script(lines, drawn[3])
    assert len(set(strokes)) == 4 and strokes[0] == swatch.replace("rgba", "rgb").replace(", 1)", ")")
    assert [row.text.split()[0] for row in find(browser, ".values tbody tr")] == ["grpo", "grpo", "amrsd", "amrsd"]
    point_at(browser, drawn[3])
    tip = WebDriverWait(browser, 5).until(lambda b: next(iter(find(b, "#vg-tooltip-element.visible")), None))
    assert "amrsd, 3e-4" in tip.text and "(" in tip.text
    assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_texts_are_inert(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    runs = [make_run(tmp_path / "a", hostile), make_run(tmp_path / "b", "grpo")]
    text = overlay.render(runs)
    assert "<img" not in text[: text.rindex("<script>")]
