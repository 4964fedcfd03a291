"""The study of a pretrained model: its arms, what it measures in rollouts, its tables, and a run of it with a tiny model."""

import numpy as np
import pytest

from experiments import common
from experiments.real_model import arms, chart, measure, runs, tables
from tests.tiny import tiny_config


@pytest.fixture
def any_model(monkeypatch):
    """Another model takes the place of SmolLM2, whose package need not be installed."""
    original = arms.smollm2.get_config

    def get_config(words):
        config = original(words)
        config.model, config.tokenizer = "tiny", "somewhere"
        return config

    monkeypatch.setattr(arms.smollm2, "get_config", get_config)


@pytest.mark.parametrize("arm", arms.ARMS)
@pytest.mark.usefixtures("any_model")
def test_every_arm_is_a_valid_config(arm):
    for rung in arms.RUNGS:
        config = arms.configure(rung, arm, 2e-5, 3)
        assert (config.seed, config.optimizer.learning_rate) == (103, 2e-5)
        assert not set(config.evaluation.benchmarks) & {"sums", "steps", "stories"}


def test_parts_are_finished_one_after_the_other_and_seed_by_seed():
    both, one = ["amrsd@tau=0", "rlsd", "grpo", "quoted_blame"], dict(rungs=["steps"], lr=[1e-5])
    order = [(key["arm"], key["seed"]) for key in arms.keys(arms=both, seeds=None, **one)]
    core = [(arm, seed) for seed in range(5) for arm in ("amrsd@tau=0", "grpo")]
    tried = [(arm, seed) for seed in range(21, 26) for arm in ("grpo", "quoted_blame")]
    others = [(arm, seed) for seed in range(10, 13) for arm in ("amrsd@tau=0", "rlsd", "grpo")]
    assert order == core + tried + others + [("grpo", seed) for seed in range(-3, 0)]
    assert [key["seed"] for key in arms.keys(arms=["rlsd"], seeds=[7, 8], **one)] == [7, 8]  # as given


# ---------------------------------------------------------------- measures


def test_rollouts_by_hand():
    """The AUROC is of two failures, whose second token is wrong.

    A success has none, nor have failures without a context, failures that are wrong as a whole, or those that stop early.
    """
    rows = [
        {
            "reward": 0,
            "gap": [0.0, -1.0, 0.0],
            "null_gap": [-0.3, 0.0, 0.0],
            "first_error_start": 1,
            "first_error_end": 2,
        },
        {
            "reward": 0,
            "gap": [-0.5, 0.1, 0.0],
            "null_gap": [-0.5, 0.5, 0.0],
            "first_error_start": 1,
            "first_error_end": 2,
        },
        {"reward": 1, "gap": [0.4], "null_gap": [-9.0], "first_error_start": -1, "first_error_end": -1},
        {"reward": 0, "gap": None, "null_gap": None, "first_error_start": 0, "first_error_end": 1},
        {"reward": 0, "gap": [0.0] * 3, "null_gap": [0.0] * 3, "first_error_start": 0, "first_error_end": 2},
        {"reward": 0, "gap": None, "null_gap": None, "first_error_start": 2, "first_error_end": 3},
    ]
    texts = {
        "question": "1 + 2?",
        "response": "1 + 2 = 4",
        "reflection": "not 4",
        "reflection_status": "ok",
        "reflection_kind": "critique",
        "finish_reason": "stop",  # the third token
    }
    rows = [
        row
        | texts
        | {"step": 4, "student_logprobs": [-0.5] * len(row["gap"] or [0]), "token_text": ["1 + 2 = ", "4", "\n"]}
        for row in rows
    ]
    found = measure.examined(rows)
    assert (found["step"], found["failures"], found["nll"]) == (4, 2, 0.5)
    # the gap is lowest at the wrong token of the first row, and highest there in the second; the control's lies between two
    # others, then is the highest; the difference is lowest there twice
    areas = {"gap": 0.5, "null": 0.125, "contrast": 1.0, "magnitude": 0.75, "surprise": 0.5}
    assert found["auroc"] == areas
    counts = {"critiques": 3, "quoting": 3, "right": 2}  # the third failure's first token is wrong, not the quoted one
    assert counts.items() <= found.items()
    assert found["above_tau"] == pytest.approx({"gap": 3 / 10, "null": 2 / 10}, abs=1e-4)
    assert found["null_quantile"] == pytest.approx(np.quantile([0.3, 0, 0, 0.5, -0.5, 0, -9, 0, 0, 0], 0.95), abs=1e-4)
    without = measure.examined([{name: value for name, value in row.items() if name != "null_gap"} for row in rows])
    assert without["auroc"] == areas | {"null": None, "contrast": None} and without["null_quantile"] is None
    assert measure.examined(rows[3:4])["auroc"]["gap"] is None


# ---------------------------------------------------------------- tables


def test_corrected_p_values_by_hand():
    assert tables.holm([0.04, 0.01, 0.03], 3) == pytest.approx([0.06, 0.03, 0.06])
    assert tables.holm([0.04, 0.01], 7) == pytest.approx([0.24, 0.07])  # five contrasts have no runs yet
    assert tables.holm([0.9, 0.6], 2) == [1.0, 1.0] and tables.holm([], 2) == []


def row(arm, seed=0, sampled=(0.0, 0.5, 0.9), **more):
    areas = {"gap": 0.6, "null": 0.5, "contrast": None, "magnitude": 0.8, "surprise": None}
    saved = {"nll": 0.5, "failures": 3, "auroc": areas}
    saved |= {"above_tau": {"gap": 0.2, "null": None}, "null_quantile": 0.1, "critiques": 4, "quoting": 2, "right": 1}
    return {
        "rung": "stories", "arm": arm, "lr": arms.LR, "seed": seed, "start": "abc", "config": arm, "steps": [0, 4, 8],
        "sampled": list(sampled), "seconds": [0.0, 10.0, 20.0], "problems": 96, "rollouts_per_step": 32, "gap_failed": None,
        "greedy": [0.1, 0.9], "greedy_curve": [0.1, 0.5, 0.9],
        "series": {name: [0.25, None] for name in measure.SERIES} | {"response_length/mean": [20.0, 9.0]},
        "rollouts": [saved, saved | {"failures": 1, "auroc": areas | {"gap": 1.0, "null": None}}],
        "kl_to_start": 0.02, "others": {"count": [0.1, 0.2]}, "date": "2030-01-01", "hardware": "two cores", "commit": "abc",
    } | more  # fmt: skip


def test_contrasts_are_paired_by_seed():
    """Areas of .475 for GRPO and of .525 and .575 for AMR-SD differ by .05 and .1; its greedy accuracies differ by .1 and 0."""
    rows = [row("grpo", greedy=[0.1, 0.8], greedy_curve=[0.1, 0.4, 0.9]), row("grpo", 1)]
    rows += [row("amrsd", sampled=(0, 0.6, 0.9)), row("amrsd", 1, sampled=(0, 0.7, 0.9), greedy_curve=[0.1, 0.7, 0.9])]
    first, last = rows[-1]["rollouts"]
    rows[-1]["rollouts"] = [first | {"failures": 1, "auroc": first["auroc"] | {"gap": 0.2}}, last]
    text = tables.table(rows)
    # .025 = half of .05, times t = 12.706; or, for seven contrasts, times 1 / tan(pi * .05 / 14) = 89.12
    by_rollouts = "0.075 (-0.243 to 0.393) | 0.075 (-2.153 to 2.303) |  | 0.050 0.100"
    greedy = "0.075 (-0.243 to 0.393) | 0.050 (-0.585 to 0.685)"
    assert f"| amrsd minus grpo | 2 | {by_rollouts} | {greedy} |" in text
    assert "| amrsd minus amrsd_shuffled" not in text  # not run
    assert "| 0.50 | 4 | 1.00 | 2 |" in text  # AUROC: .6 on three failures and .2 on one
    assert "| amrsd | 2 |" in text and "0.550 (0.232 to 0.868) | 0.075 (-0.243 to 0.393) |" in text


def test_the_greedy_curves_of_only_some_pairs_give_no_interval():
    """Three pairs, of which one has a row that is older than the curve."""
    rows = [one for k in range(3) for one in (row("grpo", k), row("amrsd", k, sampled=(0, 0.6 + k / 10, 0.9)))]
    assert "0.150 | 0.000 (0.000 to 0.000) | 0.000 (0.000 to 0.000) |" in tables.table(rows)
    del rows[0]["greedy_curve"]
    assert "0.150 |  | 0.000 (0.000 to 0.000) |" in tables.table(rows)


def test_p_is_given_when_a_part_is_complete():
    """Differences of .01 to .05 by seed: t = 4.243 with 4 degrees of freedom, p = .01324, the same for three contrasts."""
    rows = []
    for seed in arms.PARTS["try"][2]:
        rows += [row(arm, seed, rung="steps") for arm in ("grpo", "drop_failures", "shuffled_blame")]
        rows.append(row("quoted_blame", seed, rung="steps", sampled=(0.0, 0.5 + 0.02 * (seed - 20), 0.9)))
    assert tables.table(rows).count("| 0.040 | 0.010 0.020 0.030 0.040 0.050 |") == 3
    assert "| 0.040 |" not in tables.table(rows[:-1])
    assert "quoted_blame minus shuffled_blame" in chart.figure(rows)


@pytest.mark.parametrize(
    "more, message",
    [
        (dict(config="other"), "amrsd on stories .* different configs"),
        (dict(greedy=[0.2, 0.9]), "seed 1: grpo, amrsd do not begin"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        tables.table([row("grpo", 1), row("amrsd"), row("amrsd", 1, **more)])


def test_arms_that_began_from_another_start_are_not_paired():
    rows = tables.with_pairs([row("grpo"), row("amrsd", start="def", sampled=(0.3, 0.5, 0.9))])
    assert len({one["pair"] for one in rows}) == 2


def test_a_run_that_repeats_another_s_accuracies_counts_once_and_pairs_twice():
    rows = [row("grpo"), row("grpo", 1, sampled=(0, 0.7, 0.9)), row("grpo", start="def")]
    rows += [row("amrsd"), row("amrsd", start="def", sampled=(0, 0.6, 0.9))]
    text = tables.table(rows)
    assert "| grpo | 2 |" in text and "| amrsd | 2 |" in text
    assert "| amrsd minus grpo | 2 |" in text and "0.000 0.050" in text


# ---------------------------------------------------------------- runs


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study of two-digit addition by a model of 50 k parameters; a function that runs arms and returns all rows."""

    def configure(rung, arm, lr, seed):
        warmup = dict(reflection__warmup__attempts=16, reflection__warmup__rows=1, warmup__documents=0)
        config = tiny_config("grpo", **warmup)
        config.update(arms.parse_arm(arms.ARMS, arm))
        config.seed, config.steps, config.optimizer.learning_rate = seed, 2, lr
        config.evaluation.update(problems=4, every=1)
        config.evaluation.benchmarks = {
            "other": dict(task=dict(name="addition", args=dict(digits=3)), problems=2, every=0)
        }
        config.reflection.null_control_every = config.report.rollouts_every = 1
        return config

    monkeypatch.setattr(runs, "configure", configure)

    def run(*names, seeds=(0,), lr=1e-2):
        runs.run(tmp_path, tmp_path / "rows.json", rungs=["sums"], arms=list(names), lr=[lr], seeds=list(seeds))
        return common.read_rows(tmp_path / "rows.json")

    return run


@pytest.mark.slow
def test_a_study_continues_where_it_stopped_and_its_arms_are_paired(study, tmp_path):
    first = study("grpo")
    rows = study("grpo", "opd_reference", seeds=(0, 1))
    assert rows[:1] == first and {(one["arm"], one["seed"]) for one in rows} == {
        (arm, seed) for arm in ("grpo", "opd_reference") for seed in (0, 1)
    }
    assert not list(tmp_path.glob("run_*")) and len(list(tmp_path.glob("kept/*/rollouts"))) == 4
    for one in rows:
        assert one["steps"] == [0, 1, 2]
        assert (one["kl_to_start"] > 0) == (one["arm"] == "opd_reference")  # GRPO has no right answer to learn from
        assert [saved["step"] for saved in one["rollouts"]] == [1, 2]
        assert any(saved["failures"] for saved in one["rollouts"]) == (one["arm"] == "opd_reference")
    (tmp_path / "again").mkdir()
    assert runs.digest(runs.start_of("sums", tmp_path / "again")) == rows[0]["start"]  # equal parameters, other files
    text = tables.table(rows)  # refuses arms that do not begin alike
    assert text.count("| grpo |") == 2 and text.count("| opd_reference |") == 3  # GRPO has no teacher
    assert "SmolLM2-135M, sums" in chart.figure([one | {"lr": arms.LR} for one in rows])


@pytest.mark.slow
def test_the_divergence_from_the_start_is_0_where_nothing_is_learnt(study):
    (one,) = study("grpo", lr=0.0)
    assert abs(one["kl_to_start"]) < 1e-6


def test_a_failed_run_is_named_and_the_others_go_on(study, tmp_path, monkeypatch):
    def train_once(config, *_, **__):
        if config.credit.rule == "grpo":
            raise FloatingPointError("updates were not finite")
        return {"sampled": [0.1, 0.2], "wall_seconds": 1.0}

    monkeypatch.setattr(runs, "train_once", train_once)
    monkeypatch.setattr(runs, "start_of", lambda *_: tmp_path)
    with pytest.raises(SystemExit, match="1 runs failed: --rungs sums --arms grpo"):
        study("grpo", "drop_failures")
    assert [one["arm"] for one in common.read_rows(tmp_path / "rows.json")] == ["drop_failures"]
    assert "not finite" in (tmp_path / "log.txt").read_text()


def test_seeds_with_rows_of_another_start_are_named(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "train_once", lambda *_, **__: {"sampled": [0.1, 0.2], "wall_seconds": 1.0})
    monkeypatch.setattr(runs, "start_of", lambda *_: tmp_path)
    monkeypatch.setattr(runs, "digest", lambda _: "here")
    rows = [row("amrsd", seed, rung="sums", start=start) for seed, start in enumerate(("there", "here", "there"))]
    common.add_rows(tmp_path / "rows.json", *rows)
    study("grpo", seeds=(0, 1))
    assert "seeds [0] have rows of another start" in capsys.readouterr().out
