"""The experiments: what they count and estimate, by hand; and runs that are skipped where the results have them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from amrsd_jax.evaluate.estimators import t_interval
from amrsd_jax.flags import load_config
from amrsd_jax.runtime.workdir import config_json
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from experiments import collapse, common, curves, learning_curves, scaling, threshold


def test_disputes_by_hand():
    """A failure that errs at token 2: disputed there, or before, or nowhere; and a row that was not scored."""
    gap = np.array([[0, 0, -0.3, -0.3], [0, -0.3, -0.3, 0], [0, 0, -0.1, 0], [-9, -9, -9, -9]], np.float32)
    rollouts = SimpleNamespace(first_error=np.tile([2, 3], (4, 1)), mask=np.ones((4, 4), np.float32))
    scored = np.array([True, True, True, False])
    logprobs = SimpleNamespace(gap=gap, scored=scored)
    counts = dict(failures=3, disputed=2, found=1, right=6, right_disputed=1)
    assert threshold.disputes(rollouts, logprobs, 0.2) == counts


def test_the_roofline_by_hand():
    """Memory alone, then FLOPs alone, at one unit per second: on one chip nothing crosses a network."""
    c, config = scaling.PRESETS["qwen3-1.7b"], scaling.batch("qwen3-1.7b", 1, 1)
    chip = scaling.Chip("", np.inf, 0, 1.0, np.inf, 1, np.inf, "")
    weights, cache = 2 * 1_720_574_976, 256 * (512 + 512) * 2 * 28 * 8 * 128 * 2
    admissions = 4  # eight prompts at a time
    assert scaling.seconds(c, chip, config)["sample"] == admissions * weights + 1024 * (weights + cache)
    chip = scaling.Chip("", 1.0, 0, np.inf, np.inf, 1, np.inf, "")
    matrices = 28 * (2048 * 6144 + 3 * 2048 * 6144)  # query, output, key and value; the SwiGLU block
    forward = 256 * (1536 * (2 * matrices + 4 * 28 * 2048 * 768) + 1024 * 2 * 151_936 * 2048)
    assert scaling.seconds(c, chip, config)["update"] == pytest.approx(4 * forward, rel=1e-12)


# ---------------------------------------------------------------- what all experiments share


@pytest.mark.parametrize("threshold, fires", [(0.5, 12), (0.25, 10), (0.6, None)])
def test_a_lower_threshold_of_the_reward_fires_earlier(threshold, fires):
    """Means of five are 1, 0.9 ... 0.5 from the fifth step on; the third step beyond the threshold fires."""
    row = {"series": {"reward": [1.0] * 5 + [0.5] * 8}}
    assert collapse.replay(row, threshold) == (pytest.approx(0.5), fires)


def test_rows_are_added_to_a_results_file(tmp_path):
    path = tmp_path / "new" / "results.json"
    assert common.read_rows(path) == []
    for arm in ("grpo", "amrsd"):
        common.add_rows(path, {"arm": arm, "seed": 0})
    assert [row["arm"] for row in common.read_rows(path)] == ["grpo", "amrsd"]
    assert common.has_row(path, arm="amrsd", seed=0) and not common.has_row(path, arm="amrsd", seed=1)


def test_outdated_documents_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    study = common.Study(
        "one",
        None,
        lambda rows: f"{len(rows)} rows",
        "page.md",
        lambda rows: f'<text font-size="12"></text><path d="M{len(rows)}"/>',
    )
    common.add_rows(study.results, {"x": 1})
    (tmp_path / "docs").mkdir()
    (tmp_path / "page.md").write_text("There are 1 rows.")
    study.svg.write_text('<text font-size="9"></text><path d="M1"/>')  # fonts differ between machines
    assert study.outdated() == []
    common.add_rows(study.results, {"x": 2})
    assert study.outdated() == ["page.md: table of one", "docs/one.svg"]


def test_arms_of_a_seed_share_the_warm_up_that_they_have_in_common(tmp_path, monkeypatch):
    warm = {}

    def train(flags, workdir):
        warm[workdir.name] = (workdir / "warmup").exists()
        (workdir / "warmup").mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(config_json(validate(load_config(flags)))))
        (workdir / "results.json").write_text("{}")
        return "command"

    monkeypatch.setattr(common, "train", train)
    config = f"--config={common.ROOT}/configs/quickstart.py"
    arms = {"A": [config], "B": [config, "--config.credit.rule=grpo"], "C": [config, "--config.warmup.rows=9"]}
    common.run_arms(tmp_path, tmp_path / "results.json", arms, (0, 1), lambda workdir, results: {})
    assert warm == {"a_0": False, "a_1": False, "b_0": True, "b_1": True, "c_0": False, "c_1": False}
    assert len(common.read_rows(tmp_path / "results.json")) == 6


# ---------------------------------------------------------------- learning curves


def row(arm, warm=0, seed=0, sampled=(0.0, 0.5, 0.9), seconds=(0.0, 10.0, 20.0), **more):
    return {
        "task": "hard", "arm": arm, "warm": warm, "lr": 1e-3, "seed": seed, "steps": [0, 5, 10],
        "sampled": list(sampled), "seconds": list(seconds), "problems": 128, "rollouts_per_step": 32,
        "gap_failed": None, "date": "2030-01-01", "hardware": "two cores", "commit": "abc",
    } | more  # fmt: skip


def test_steps_to_a_level_by_hand():
    assert curves.reached([0, 5, 10], [0.1, 0.5, 0.4], 0.5) == 5
    assert curves.reached([0, 5, 10], [0.1, 0.3, 0.4], 0.5) == float("inf")


def test_area_by_hand():
    assert curves.area([0, 10, 20], [0.0, 1.0, 1.0], 20) == pytest.approx(0.75)
    assert curves.area([0, 10, 20], [0.0, 1.0, 1.0], 5) == pytest.approx(0.25)  # the curve is at .5 there
    assert curves.area([0, 10, 20], [0.0, 1.0, 1.0], 15) == pytest.approx(10 / 15)
    for until in (0, 21):
        with pytest.raises(ValueError, match="the curve goes from 0 to 20"):
            curves.area([0, 10, 20], [0.0, 1.0, 1.0], until)


def test_intervals_hold_the_mean_and_shrink_to_it():
    mean, low, high = curves.interval([0.1, 0.2, 0.3, 0.4])
    assert mean == pytest.approx(0.25) and 0.1 <= low < mean < high <= 0.4
    assert curves.interval([0.3]) == (0.3, 0.3, 0.3)
    assert curves.interval([0.1, 0.2, 0.3, 0.4]) == (mean, low, high)  # a generator of its own


def test_intervals_by_t_by_hand():
    """The standard error of 1, 2, 3 is 1 / sqrt(3), and t is 4.303 with 2 degrees of freedom."""
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 2.4843, 2 + 2.4843), abs=1e-3)
    assert t_interval([1.0, 2.0, 3.0], 0.99) == pytest.approx((2.0, 2 - 5.7300, 2 + 5.7300), abs=1e-3)  # t = 9.925
    assert curves.interval_cell(t_interval([0.5])) == "0.500"


def test_of_few_runs_the_interval_by_t_holds_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(1000, 5))
    assert 0.93 < np.mean([low < 0 < high for _, low, high in map(t_interval, samples.tolist())]) < 0.97


def test_differences_are_paired():
    """The pairs differ by .1 each, however far apart they are from each other."""
    values, baseline = {(0, 0): 0.2, (1, 0): 0.9, (1, 1): 0.5}, {(0, 0): 0.1, (1, 0): 0.8}
    assert curves.paired(values, baseline) == pytest.approx((0.1, 0.1, 0.1))
    assert curves.paired(values, {(5, 5): 1.0}) is None


def test_an_arm_may_set_arguments_of_its_rule():
    credit = {"rule": "amrsd", "context": "", "args": {"tau": 0.05, "lam": 1}}
    assert curves.parse_arm(learning_curves.ARMS, "amrsd@tau=0.05,lam=1") == {"credit": credit}
    assert curves.parse_arm(learning_curves.ARMS, "amrsd_strong@lam=2")["credit"]["args"] == {"lam": 2, "gamma": 1.0}
    with pytest.raises(ValueError, match="did you mean 'amrsd'"):
        curves.parse_arm(learning_curves.ARMS, "amrds")
    with pytest.raises(ValueError, match="expected name=number after the @, not 'tau'"):
        curves.parse_arm(learning_curves.ARMS, "amrsd@tau")
    with pytest.raises(ConfigError, match="did you mean 'tau'"):
        learning_curves.configure("hard", "amrsd@tua=0.05", 0, 1e-3, 0)


@pytest.mark.parametrize("arm", learning_curves.ARMS)
def test_every_arm_is_a_valid_config(arm):
    for task in ("hard", "easy"):
        config = learning_curves.configure(task, arm, warm=1, lr=5e-4, seed=2)
        assert config.seed == 1002 and config.optimizer.learning_rate == 5e-4


def test_a_curve_from_metrics_by_hand():
    metrics = [
        {"kind": "eval", "step": 0, "eval/sampled": 0.1, "eval/n": 4},
        {"kind": "train", "step": 1, "seconds/step": 2.0, "credit/gap_failed": -0.2, "seconds/report": 0.5},
        {"kind": "train", "step": 2, "seconds/step": 3.0, "credit/gap_failed": None, "seconds/null_control": 1.0},
        {"kind": "eval", "step": 2, "eval/sampled": 0.3, "eval/n": 4},
    ]
    assert curves.curve(metrics, 32) == {
        "steps": [0, 2], "sampled": [0.1, 0.3], "seconds": [0.0, 3.5], "problems": 4, "rollouts_per_step": 32,
        "gap_failed": -0.2,
    }  # fmt: skip


def test_the_table_by_hand():
    rows = [row("grpo"), row("grpo", seed=1), row("amrsd", sampled=(0.0, 0.1, 0.2), seconds=(0.0, 20.0, 40.0))]
    text = learning_curves.table(rows)
    assert "| grpo | 2 | 5 (2/2) | 10 (2/2) | 0.700 | 0.900 | 0.475 (0.475 to 0.475) |" in text
    # half of AMR-SD's curve fits into GRPO's 20 seconds
    assert "| amrsd | 1 | never (0/1) | never (0/1) | 0.150 | 0.200 | 0.100 (0.100 to 0.100) | -0.375" in text
    assert "| 0.050 (0.050 to 0.050) | -0.425 (-0.425 to -0.425) |  | 4.00 |  |" in text


def test_a_busy_machine_does_not_change_the_areas_at_equal_seconds():
    quiet = [row(arm, seed=seed) for arm in ("grpo", "amrsd") for seed in (0, 1)]
    slowed = [one | {"seconds": [0.0, 70.0, 140.0]} if one["arm"] == "amrsd" and one["seed"] else one for one in quiet]
    assert curves.areas(slowed, "warm") == curves.areas(quiet, "warm")


@pytest.mark.slow
def test_a_killed_experiment_continues_where_it_stopped(tmp_path, monkeypatch):
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
    axes = dict(tasks=["hard"], warm=[0], lr=[1e-3], seeds=[0])
    learning_curves.run(tmp_path, results, arms=["grpo"], **axes)
    first = common.read_rows(results)
    learning_curves.run(tmp_path, results, arms=["grpo", "prefix_credit@tau=0.1"], **axes)
    rows = common.read_rows(results)
    assert rows[:1] == first and [each["arm"] for each in rows] == ["grpo", "prefix_credit@tau=0.1"]
    for each in rows:
        assert each["steps"] == [0, 1, 2] and len(each["sampled"]) == 3 and each["seconds"] == sorted(each["seconds"])
        assert each["rollouts_per_step"] == 32 and each["problems"] == 8
    assert rows[0]["sampled"][0] == rows[1]["sampled"][0]  # one warm start, one set of problems
    assert not list(tmp_path.glob("run_*"))
