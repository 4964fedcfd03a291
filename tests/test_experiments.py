"""The experiments' scripts: the README's table is theirs, aggregates by hand, and runs that are skipped when they are there."""

import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from amrsd_jax.checks import ConfigError
from experiments import (
    aggregate,
    collapse,
    credit_localisation,
    learning_curves,
    padding,
    quickstart,
    scaling,
    threshold,
)

ROOT = Path(__file__).parents[1]


def test_the_readme_has_the_quickstart_table_of_the_results_file():
    assert quickstart.table() in (ROOT / "README.md").read_text()


def test_the_results_say_what_the_readme_says():
    """Before at most .35; after at least .90 with every seed by both rules, and at most .35 by the control: GRPO with permuted
    rewards. AMR-SD with permuted rewards drifts as far as chance has it, and stays behind itself with verified ones."""
    rows = json.loads(quickstart.RESULTS.read_text())
    after = {(row["arm"], row["seed"]): row["eval"]["final"]["sampled"] for row in rows}
    for row in rows:
        assert row["eval"]["initial"]["sampled"] <= 0.35 and row["eval"]["final"]["n"] >= 256
    for seed in {row["seed"] for row in rows}:
        assert after["AMR-SD", seed] >= 0.90 and after["GRPO", seed] >= 0.90
        assert after["GRPO, rewards permuted", seed] <= 0.35
        assert after["AMR-SD, rewards permuted", seed] < after["AMR-SD", seed] - 0.25


def test_credit_localisation_is_scored_by_the_parameters_that_sampled():
    rows = json.loads(credit_localisation.RESULTS.read_text())
    steps = {(row["seed"], row["step"]) for row in rows}
    assert steps == {(seed, step) for seed in credit_localisation.SEEDS for step in credit_localisation.STEPS}
    assert all(row["checkpoint"] == row["step"] and row["command"] and row["hardware"] and row["date"] for row in rows)


def test_credit_localisation_draws_its_results_file():
    assert credit_localisation.figure() == credit_localisation.FIGURE.read_text()
    assert credit_localisation.table().count("\n| amrsd@") == len(credit_localisation.CONTROLS)


def test_grpo_tells_no_token_from_another():
    """The control of the measure itself: half by AUROC, a guess by precision."""
    grpo = [row for row in json.loads(credit_localisation.RESULTS.read_text()) if row["method"] == "grpo"]
    for one in filter(None, (row["credit"] for row in grpo)):
        assert one["auroc"] == 0.5 and abs(one["precision_at_1"] - one["random"]["precision_at_1"]) < 1e-9


def test_the_monitor_page_has_the_table_of_the_collapse():
    assert collapse.table() in (ROOT / "docs" / "monitor.md").read_text()


def test_the_monitor_fired_with_reward_left_and_amrsd_stayed():
    for row in json.loads(collapse.RESULTS.read_text()):
        if row["arm"] == "AMR-SD":
            assert row["fired"] == {} and row["gone"] is None
        elif "rollback" not in row["arm"]:
            assert row["series"]["reward"][min(row["fired"].values()) - 1] > 0
            assert min(row["fired"].values()) < (row["gone"] or row["steps"])


def test_the_findings_have_the_tables_and_figures_of_the_results_files():
    findings = (ROOT / "docs" / "findings.md").read_text()
    rows = learning_curves.load(learning_curves.RESULTS)
    assert credit_localisation.table() in findings
    assert threshold.table() in findings
    assert learning_curves.table(rows) in findings
    drawn = learning_curves.figure(rows, list(learning_curves.DRAWN), 5e-4)
    assert drawn == (ROOT / "docs" / "learning_curves.svg").read_text()


def test_every_run_of_the_learning_curves_can_be_repeated():
    """Each row names what it was and where it ran, and its arm is still there."""
    for each in learning_curves.load(learning_curves.RESULTS):
        assert each["arm"].partition("@")[0] in learning_curves.ARMS and "--arms" in each["command"]
        assert each["hardware"] and each["date"] and each["commit"] and not each["commit"].endswith("dirty")
        assert each["steps"][-1] == 60 and len(each["sampled"]) == len(each["steps"])


def test_disputes_by_hand():
    """A failure that errs at token 2: disputed there, or before, or nowhere; and a row that nobody scored."""
    gap = np.array([[0, 0, -0.3, -0.3], [0, -0.3, -0.3, 0], [0, 0, -0.1, 0], [-9, -9, -9, -9]], np.float32)
    rollouts = SimpleNamespace(first_error=np.tile([2, 3], (4, 1)), mask=np.ones((4, 4), np.float32))
    scores = SimpleNamespace(logp_teacher=gap, logp_student=0 * gap, scored=np.array([True, True, True, False]))
    assert threshold.disputes(rollouts, scores, 0.2) == dict(failures=3, disputed=2, found=1, right=6, right_disputed=1)


# ---------------------------------------------------------------- learning curves


def row(arm, warm=0, seed=0, sampled=(0.0, 0.5, 0.9), seconds=(0.0, 10.0, 20.0), **more):
    return {
        "task": "hard", "arm": arm, "warm": warm, "lr": 1e-3, "seed": seed, "steps": [0, 5, 10],
        "sampled": list(sampled), "seconds": list(seconds), "problems": 128, "rollouts_per_step": 32,
        "gap_failed": None, "gap_correct": None, "date": "2030-01-01", "hardware": "two cores", "commit": "abc",
    } | more  # fmt: skip


def test_steps_to_a_level_by_hand():
    assert aggregate.reached([0, 5, 10], [0.1, 0.5, 0.4], 0.5) == 5
    assert aggregate.reached([0, 5, 10], [0.1, 0.3, 0.4], 0.5) == float("inf")
    assert aggregate.middle([5.0, float("inf"), 15.0]) == 15.0
    assert aggregate.middle([5.0, float("inf")]) == 5.0


def test_final_is_the_mean_of_the_last_two():
    assert aggregate.final([0.0, 0.5, 1.0]) == 0.75


def test_area_by_hand():
    assert aggregate.area([0, 10, 20], [0.0, 1.0, 1.0], 20) == pytest.approx(0.75)
    assert aggregate.area([0, 10, 20], [0.0, 1.0, 1.0], 10) == pytest.approx(0.5)
    assert aggregate.area([0, 10, 20], [0.0, 1.0, 1.0], 5) == pytest.approx(0.25)  # the curve is at .5 there
    assert aggregate.area([0, 10, 20], [0.0, 1.0, 1.0], 15) == pytest.approx(10 / 15)
    for until in (0, 21):
        with pytest.raises(ValueError, match="the curve goes from 0 to 20"):
            aggregate.area([0, 10, 20], [0.0, 1.0, 1.0], until)


def test_intervals_hold_the_mean_and_shrink_to_it():
    mean, low, high = aggregate.interval([0.1, 0.2, 0.3, 0.4])
    assert mean == pytest.approx(0.25) and 0.1 <= low < mean < high <= 0.4
    assert aggregate.interval([0.3]) == (0.3, 0.3, 0.3)
    assert aggregate.interval([0.1, 0.2, 0.3, 0.4]) == (mean, low, high)  # its own generator


def test_differences_are_paired():
    """The pairs differ by .1 each, however far apart they are from each other."""
    values, baseline = {(0, 0): 0.2, (1, 0): 0.9, (1, 1): 0.5}, {(0, 0): 0.1, (1, 0): 0.8}
    assert aggregate.paired(values, baseline) == pytest.approx((0.1, 0.1, 0.1))
    assert aggregate.paired(values, {(5, 5): 1.0}) is None


def test_an_arm_may_set_arguments_of_its_rule():
    credit = {"rule": "amrsd", "context": "", "args": {"tau": 0.05, "lam": 1}}
    assert learning_curves.parse_arm("amrsd@tau=0.05,lam=1") == {"credit": credit}
    assert learning_curves.parse_arm("amrsd_strong@lam=2")["credit"]["args"] == {"lam": 2, "gamma": 1.0}
    assert learning_curves.parse_arm("amrsd_strong")["credit"]["args"] == {"lam": 1.0, "gamma": 1.0}
    with pytest.raises(ValueError, match="did you mean 'amrsd'"):
        learning_curves.parse_arm("amrds")
    with pytest.raises(ValueError, match="expected name=number after the @, not 'tau'"):
        learning_curves.parse_arm("amrsd@tau")
    with pytest.raises(ConfigError, match="did you mean 'tau'"):
        learning_curves.configure("hard", "amrsd@tua=0.05", 0, 1e-3, 0)


@pytest.mark.parametrize("arm", learning_curves.ARMS)
def test_every_arm_is_a_valid_config(arm):
    for task in ("hard", "easy"):
        config = learning_curves.configure(task, arm, warm=1, lr=5e-4, seed=2)
        assert config.seed == 1002 and config.optimizer.learning_rate == 5e-4


def test_a_curve_from_metrics_by_hand():
    def trained(step, **more):
        return {
            "kind": "train",
            "step": step,
            "seconds/step": 2.0,
            "reflection/needed": 1.0,
            "reflection/usable": 0.5,
        } | more

    metrics = [
        {"kind": "eval", "step": 0, "eval/sampled": 0.1, "eval/n": 4},
        trained(1, **{"credit/gap_failed": -0.2, "credit/gap_correct": None, "seconds/report": 0.5}),
        trained(2, **{"credit/gap_failed": None, "credit/gap_correct": None}),
        {"kind": "eval", "step": 2, "eval/sampled": 0.3, "eval/n": 4},
    ]
    assert learning_curves.curve(metrics, 32) == {
        "steps": [0, 2], "sampled": [0.1, 0.3], "seconds": [0.0, 3.5], "problems": 4, "rollouts_per_step": 32,
        "gap_failed": -0.2, "gap_correct": None, "needed": 1.0, "usable": 0.5,
    }  # fmt: skip


def test_the_table_by_hand():
    rows = [row("grpo"), row("grpo", seed=1), row("amrsd", sampled=(0.0, 0.1, 0.2), seconds=(0.0, 20.0, 40.0))]
    text = learning_curves.table(rows)
    assert "| grpo | 2 | 5 (2/2) | 10 (2/2) | 0.700 | 0.900 | 0.475 (0.475 to 0.475) |" in text
    # half of AMR-SD's curve fits into GRPO's 20 seconds
    assert "| amrsd | 1 | never (0/1) | never (0/1) | 0.150 | 0.200 | 0.100 (0.100 to 0.100) | -0.375" in text
    assert "| 0.050 (0.050 to 0.050) | -0.425 (-0.425 to -0.425) |  | 4.00 |  |" in text
    assert "32 rollouts a step, 10 steps, 128 held-out problems" in text and "commit abc" in text


def test_a_busy_machine_does_not_change_who_wins_at_equal_seconds():
    quiet = [row(arm, seed=seed) for arm in ("grpo", "amrsd") for seed in (0, 1)]
    slowed = [one | {"seconds": [0.0, 70.0, 140.0]} if one["arm"] == "amrsd" and one["seed"] else one for one in quiet]
    assert learning_curves.areas(slowed) == learning_curves.areas(quiet)


def test_rows_are_added_one_by_one(tmp_path):
    path = tmp_path / "new" / "results.json"
    assert learning_curves.load(path) == []
    for arm in ("grpo", "amrsd"):
        learning_curves.add(path, row(arm))
    assert [each["arm"] for each in learning_curves.load(path)] == ["grpo", "amrsd"]


def test_the_figure_is_one_svg_with_a_panel_a_task():
    rows = [row("grpo", seed=seed, sampled=(0.0, 0.5, 0.8 + seed / 10)) for seed in (0, 1)]
    svg = learning_curves.figure([*rows, row("amrsd"), row("amrsd", task="easy")], ["grpo", "amrsd"], 1e-3)
    ElementTree.fromstring(svg)
    assert svg.count("<svg") == 3 and "prefers-color-scheme:dark" in svg and 'class="band s1"' in svg
    with pytest.raises(ValueError, match="no result of grpo at learning rate 0.5"):
        learning_curves.figure(rows, ["grpo"], 0.5)


@pytest.mark.slow
def test_a_killed_experiment_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """Two arms on a tiny table; the second call adds what is missing and nothing else."""

    def small(name):
        config = original(name)
        config.steps, config.mesh.data = 2, 1
        config.task.args.update(lookups=2)
        config.architecture.update(width=16, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=16)
        config.warmup.documents = 300
        config.evaluation.update(problems=8, every=1)
        return config

    original = learning_curves.tables.get_config
    monkeypatch.setattr(learning_curves.tables, "get_config", small)
    results = tmp_path / "results.json"
    axes = dict(task=["hard"], warm=[0], lr=[1e-3], seed=[0])
    learning_curves.run(tmp_path, results, arm=["grpo"], **axes)
    first = learning_curves.load(results)
    learning_curves.run(tmp_path, results, arm=["grpo", "prefix_credit@tau=0.1"], **axes)
    rows = learning_curves.load(results)
    assert rows[:1] == first and [each["arm"] for each in rows] == ["grpo", "prefix_credit@tau=0.1"]
    for each in rows:
        assert each["steps"] == [0, 1, 2] and len(each["sampled"]) == 3 and each["seconds"] == sorted(each["seconds"])
        assert each["rollouts_per_step"] == 32 and each["problems"] == 8
    assert rows[0]["sampled"][0] == rows[1]["sampled"][0]  # one warm start, one set of problems
    assert capsys.readouterr().out.count("warm start 0 of hard") == 1
    assert not list(tmp_path.glob("run_*"))


def test_the_roofline_by_hand():
    """Memory alone, then FLOPs alone, at one unit a second: on one chip nothing crosses a network."""
    c, config = scaling.PRESETS["qwen3-1.7b"], scaling.batch("qwen3-1.7b", 1, 1)
    chip = scaling.Chip("", np.inf, 0, 1.0, np.inf, 1, np.inf, "")
    weights, cache = 2 * 1_720_574_976, 256 * (512 + 512) * 2 * 28 * 8 * 128 * 2
    assert scaling.seconds(c, chip, config)["sample"] == weights + 1024 * (weights + cache)
    chip = scaling.Chip("", 1.0, 0, np.inf, np.inf, 1, np.inf, "")
    matrices = 28 * (2048 * 6144 + 3 * 2048 * 6144)  # query, output, key and value; the SwiGLU block
    forward = 256 * (1536 * (2 * matrices + 4 * 28 * 2048 * 768) + 1024 * 2 * 151_936 * 2048)
    assert scaling.seconds(c, chip, config)["learn"] == pytest.approx(4 * forward, rel=1e-12)


def test_the_scaling_page_has_the_rows_of_its_command():
    for row in scaling.cells(
        "qwen3-1.7b", scaling.CHIPS[1]
    ):  # the one that needs no more chips than tests have devices
        assert scaling.line(row) in scaling.PAGE.read_text()


def test_the_performance_page_has_the_table_of_padding():
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    assert padding.table() in page
