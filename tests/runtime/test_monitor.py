"""The collapse monitor on scripted values: each signal worked by hand, when it fires, and its state."""

import json
import math

import numpy as np
import pytest

from amrsd_jax.config import MonitorConfig
from amrsd_jax.records import Contexts, Credit, LogProbs, Rollouts, StepRecord, Verdict
from amrsd_jax.runtime import monitor


def settings(window=2, patience=1, **actions):
    """Settings with every signal off but those named: (action, threshold)."""
    off = {name: dict(action="off", threshold=0.5) for name in monitor.SIGNALS}
    on = {name: dict(action=action, threshold=threshold) for name, (action, threshold) in actions.items()}
    return MonitorConfig(window=window, patience=patience, **off | on)


def play(name, raw, config):
    """Values and fired flags of one signal over a run of raw measures, and the steps at which it begins to fire."""
    tracks, values, fired, begins = {}, [], [], []
    for step, measured in enumerate(raw):
        tracks, row, alarms = monitor.observe(tracks, {name: measured}, config)
        tracks = json.loads(json.dumps(tracks))  # as through a checkpoint
        values.append(row[f"monitor/{name}"])
        fired.append(row[f"monitor/{name}_fired"])
        begins += [step] * len(alarms)
    return values, fired, begins


# ---------------------------------------------------------------- when a signal fires


def test_reward_falls_from_its_running_best():
    """Means of two: .3 .5 .6 .4 .1 .3; the best is .3 .5 .6 .6 .6 .6."""
    config = settings(reward=("warn", 0.5))
    values, fired, begins = play("reward", [0.2, 0.4, 0.6, 0.6, 0.2, 0.0, 0.6], config)
    assert values == [None, *map(pytest.approx, [0, 0, 0, 1 / 3, 5 / 6, 1 / 2])]
    assert fired == [0, 0, 0, 0, 0, 1, 1] and begins == [5]


def test_a_reward_of_zero_cannot_fall():
    assert play("reward", [0.0] * 4, settings(reward=("warn", 0.5))) == ([None] * 4, [0] * 4, [])


@pytest.mark.parametrize("name", ["entropy", "shorter", "gap"])
def test_falling_to_a_fraction_of_the_start(name):
    """The start is (3 + 1) / 2; after it means 2, 1, .5 are ratios 1, .5, .25: at the threshold counts."""
    values, fired, _ = play(name, [3.0, 1.0, 3.0, -1.0, 2.0], settings(**{name: ("warn", 0.25)}))
    assert values == [None, 1.0, 1.0, 0.5, 0.25] and fired == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", ["entropy_rise", "longer"])
def test_rising_to_a_multiple_of_the_start(name):
    values, fired, _ = play(name, [10.0, 10.0, 20.0, 40.0], settings(**{name: ("warn", 3.0)}))
    assert values == [None, 1.0, 1.5, 3.0] and fired == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["truncation", "repetition", "mass", "zero_advantage", "unusable", "timeouts"])
def test_shares_are_compared_as_they_are(name):
    values, fired, _ = play(name, [0.5, 0.25, 0.25, 0.75], settings(**{name: ("warn", 0.5)}))
    assert values == [None, 0.375, 0.25, 0.5] and fired == [0, 0, 0, 1]


def test_patience_is_of_steps_in_a_row_and_an_alarm_is_given_once():
    config = settings(window=1, patience=2, zero_advantage=("warn", 0.9))
    _, fired, begins = play("zero_advantage", [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0], config)
    assert fired == [0, 0, 0, 1, 1, 0, 0, 1] and begins == [3, 7]


def test_a_step_without_a_measure_neither_adds_nor_ends():
    config = settings(window=1, patience=2, mass=("warn", 0.5))
    values, fired, begins = play("mass", [1.0, None, 1.0, None, 1.0, 0.0], config)
    assert values == [1.0, None, 1.0, None, 1.0, 0.0]
    assert fired == [0, 0, 1, 1, 1, 0] and begins == [2]


def test_the_strongest_action_comes_first():
    config = settings(window=1, zero_advantage=("warn", 0.5), mass=("stop", 0.5), truncation=("rollback", 0.5))
    _, row, alarms = monitor.observe({}, {"truncation": 1.0, "mass": 0.5, "zero_advantage": 1.0}, config)
    assert [alarm.action for alarm in alarms] == ["stop", "rollback", "warn"]
    assert row["monitor/mass"] == 0.5 and row["monitor/mass_fired"] == 1
    assert alarms[0].record(7) == {"signal": "mass", "step": 7, "value": 0.5, "threshold": 0.5}


def test_healthy_is_what_no_acting_signal_is_against_even_before_it_fires():
    config = settings(window=1, patience=3, zero_advantage=("warn", 0.5), mass=("rollback", 0.5))
    assert monitor.rolls_back(config) and monitor.healthy({}, config)
    for zero, mass, well in ((1.0, 0.0, True), (1.0, 0.6, False), (0.0, 0.4, True)):
        tracks, _, _ = monitor.observe({}, {"zero_advantage": zero, "mass": mass}, config)
        assert monitor.healthy(tracks, config) == well
    assert not monitor.rolls_back(settings(zero_advantage=("stop", 0.5)))


def test_the_state_of_the_caller_is_not_changed():
    config = settings(window=1, zero_advantage=("warn", 0.5))
    before = {"zero_advantage": {"recent": [1.0], "start": 1.0, "best": 1.0, "streak": 1}}
    kept = json.dumps(before)
    monitor.observe(before, {"zero_advantage": 0.0}, config)
    assert json.dumps(before) == kept


# ---------------------------------------------------------------- measures


@pytest.mark.parametrize(
    "message, late",
    [
        ("comparing the final answer timed out", True),
        ("the program timed out; input 3", True),
        ("the verifier timed out after 2 s, or ended its process: mine.py:verify", True),
        ("ValueError: timed out in line 1", False),
        ("wrong result; got timed out", False),
        ("AssertionError (line 2, `assert done, 'timed out'`); 0 of 1 tests passed", False),
    ],
)
def test_what_a_response_says_is_no_timeout(message, late):
    assert Verdict(0.0, message, None, True).timed_out == late


def step_record(**changes):
    """A step of one group of two rows [2, 6], of five tokens and of three."""
    mask = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], np.float32)
    zeros = np.zeros_like(mask)
    parts = dict(reward=[1.0, 0.0], finish=("stop", "length"), message=("correct", "timed out after 5 s"))
    parts |= dict(scored=[True, False], student=zeros, teacher=zeros, advantage=[1.0, 0.0], token_advantage=zeros)
    parts |= changes
    verdicts = tuple(Verdict(r, m, None, True) for r, m in zip(parts["reward"], parts["message"], strict=True))
    rollouts = Rollouts(
        problems=(), text=("", ""), verdicts=verdicts, finish_reason=parts["finish"],
        prompt=np.zeros((2, 1), int), prompt_length=np.ones(2, int), response=np.zeros((2, 6), int), mask=mask,
        sampler_logprobs=zeros, reward=np.array(parts["reward"], np.float32), first_error=np.full((2, 2), -1),
    )  # fmt: skip
    contexts = Contexts(
        ("hint", "critique"), ("ok", "leak"), ("a", "b"), np.zeros(0, int), np.zeros((0, 1), int), np.zeros(0, int)
    )
    negatives = np.zeros((0, *zeros.shape), np.float32), np.zeros((0, len(zeros)), bool)
    logprobs = LogProbs(parts["student"], parts["teacher"], zeros, zeros, np.array(parts["scored"]), *negatives)
    credit = Credit(np.array(parts["advantage"], np.float32), parts["token_advantage"], {})
    return StepRecord(rollouts, contexts, logprobs, credit, {})


def everything():
    return settings(**{name: ("warn", 0.5) for name in monitor.SIGNALS})


def test_measures_of_a_step():
    """|gap| is .5 on the five tokens of the scored row, all of which are one id; the padding and the other row do not count."""
    teacher = np.full((2, 6), -0.5, np.float32)
    credit = np.array([[0, 3, 0, -1, 0, 9], [0, 0, 0, 9, 9, 9]], np.float32)
    measured = monitor.measure(
        step_record(teacher=teacher, token_advantage=credit, advantage=[0.0, 0.0]),
        [{"entropy": np.float32(1)}, {"entropy": np.float32(2)}],
        everything(),
        group=2,
    )
    assert measured == {
        "reward": 0.5, "entropy": 1.5, "entropy_rise": 1.5, "shorter": 4.0, "longer": 4.0, "truncation": 0.5,
        "repetition": 5 / 8, "gap": 0.5, "mass": 0.75, "zero_advantage": 1.0, "timeouts": 0.5,
        "unusable": 0.5,
    }  # fmt: skip


def test_groups_without_advantage():
    """A group counts if none of its rows has an advantage. Groups of one have none by definition, and are not measured then."""
    config, none = settings(zero_advantage=("warn", 0.5)), step_record(advantage=[0.0, 0.0])
    measured = [monitor.measure(record, [], config, 2)["zero_advantage"] for record in (step_record(), none)]
    assert measured == [0.0, 1.0]
    assert monitor.measure(none, [], config, 1)["zero_advantage"] is None
    assert monitor.measure(step_record(), [], config, 1)["zero_advantage"] == 0.5  # of the batch's mean


def test_nothing_to_measure_is_none():
    measured = monitor.measure(
        step_record(scored=[False, False]), [{"entropy": np.float32("nan")}], everything(), group=2
    )
    assert measured["gap"] is measured["mass"] is measured["entropy"] is None
    nobody = monitor.measure(step_record(), [{"entropy": 1.0, "divergence": 0.0}], everything(), group=2)
    assert (
        nobody["gap"] is None
    )  # no row has a context, and a divergence of 0 would look like a teacher that says nothing


def test_an_update_without_a_token_does_not_count():
    updates = [{"entropy": np.float32(1)}, {"entropy": np.float32("nan")}]
    assert monitor.measure(step_record(), updates, everything(), group=2)["entropy"] == 1.0


def test_a_signal_that_is_off_is_not_measured():
    assert monitor.measure(step_record(), [], settings(truncation=("warn", 0.5)), group=2) == {"truncation": 0.5}


@pytest.mark.parametrize(
    "response, covered",
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0),
        ([1, 2, 3, 4, 1, 2, 3, 4, 9], 8),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4], 8),
        ([7, 7, 7, 7, 7, 1, 2, 3, 4], 5),  # occurrences may overlap
        ([1, 2, 3, 1, 2, 3, 8, 8, 8], 0),  # trigrams are too short
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], 9),
    ],
)
def test_repeated_four_grams(response, covered):
    """Beside a row that repeats nothing of its own, though the first row's n-grams."""
    rows, mask = np.array([response, [1, 2, 3, 4, 5, 6, 7, 8, 9]]), np.ones((2, 9), np.float32)
    assert monitor.repeated_share(rows, mask) == covered / 18


def test_repetition_is_that_of_a_slow_loop():
    generator = np.random.default_rng(0)
    rows, mask = generator.integers(0, 3, (20, 30)), np.zeros((20, 30), np.float32)
    covered = 0
    for row, m, n in zip(rows, mask, generator.integers(1, 31, 20), strict=True):
        m[:n] = 1
        grams = [tuple(row[i : i + 4]) for i in range(n - 3)]
        covered += len({i + k for i, gram in enumerate(grams) if grams.count(gram) > 1 for k in range(4)})
    assert monitor.repeated_share(rows, mask) == pytest.approx(covered / mask.sum())
    assert monitor.repeated_share(rows[:, :3], mask[:, :3]) == 0.0


def test_mass_on_the_top_hundredth():
    """Of 200 tokens the two largest hold 30 + 20 of 30 + 20 + 198 / 2."""
    size = np.full((2, 100), -0.5, np.float32)
    size[0, 3], size[1, 7] = 30, -20
    assert monitor.top_share(size, np.ones((2, 100), np.float32)) == pytest.approx(50 / 149)
    assert monitor.top_share(size * 0, np.ones((2, 100), np.float32)) is None


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("name, signal", monitor.SIGNALS.items())
def test_thresholds_that_would_always_or_never_fire_are_refused(name, signal):
    default = getattr(MonitorConfig(), name).threshold
    assert signal.check(default) == ""
    for wrong in (0.0, -1.0, math.nan, 1.0 if signal.against == "start" else 1.5):
        assert signal.check(wrong)
    assert not signal.beyond({"level": 0.0, "best": 0.0, "start": 1.0}[signal.against], default)
