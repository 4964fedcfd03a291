"""Tables in the README are those that the experiments' scripts make from their result files."""

import json
from pathlib import Path

from experiments import collapse, credit_localisation, quickstart

ROOT = Path(__file__).parents[1]


def test_the_readme_has_the_quickstart_table_of_the_results_file():
    assert quickstart.table() in (ROOT / "README.md").read_text()


def test_the_results_say_what_the_readme_says():
    """Before at most .35 and after at least .90 with every seed, by both rules; not with permuted rewards."""
    for row in json.loads(quickstart.RESULTS.read_text()):
        before, after = row["eval"]["initial"]["sampled"], row["eval"]["final"]["sampled"]
        assert before <= 0.35 and row["eval"]["final"]["n"] >= 256
        assert after <= 0.35 if "permuted" in row["arm"] else after >= 0.90


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
