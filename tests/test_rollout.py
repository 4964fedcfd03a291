"""Generating a step: where and when reflections run changes no token; rewards that may still change are decided on last."""

import dataclasses

import jax
import numpy as np
import pytest

from amrsd_jax.experiment import make_experiment
from amrsd_jax.rollout import decide, generate, permute_rewards
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.start import initial_params
from amrsd_jax.validate import validate
from tests.tiny import tiny_config, tiny_rollouts

pytestmark = pytest.mark.slow


def make(finished, **fields):
    """Rows of rollouts have room for reflections; half of the rollouts at a time have a slot."""
    return make_experiment(validate(tiny_config(rollout__response_length=96, rollout__slots=16, **fields)), finished)


@pytest.fixture(scope="module")
def experiment(finished):
    return make(finished, credit__exact_savings=False)


@pytest.fixture(scope="module")
def params(finished, experiment):
    return experiment.sampler_params(initial_params(experiment, finished, Clock()))


@pytest.fixture(scope="module")
def early(experiment, params):
    """A batch whose reflections ran beside its rollouts, and its timeline."""
    return run(experiment, params)


def run(experiment, params):
    clock = Clock()
    return generate(experiment, params, None, 0, 0, clock), clock.timeline(slots=16)


def sampled_beside(timeline):
    """Whether reflections had slots in the phase in which rollouts are sampled, and whether any had later."""
    (name, _, end), *_ = timeline["phases"]
    assert name == "sample"
    busy = np.array(timeline["busy"]["reflections"])
    last = int(np.ceil(len(busy) * end / timeline["seconds"]))
    return busy[: last - 1].any(), busy[last + 1 :].any()


def assert_same_batch(a, b):
    for field in ("prompt", "response", "mask", "reward"):
        np.testing.assert_array_equal(getattr(a.rollouts, field), getattr(b.rollouts, field))
    np.testing.assert_allclose(a.rollouts.sampler_logprobs, b.rollouts.sampler_logprobs, atol=1e-5)  # programs differ
    np.testing.assert_array_equal(a.advantage, b.advantage)
    assert a.position == b.position
    for field in ("kind", "status", "text"):
        assert getattr(a.contexts, field) == getattr(b.contexts, field)
    np.testing.assert_array_equal(a.contexts.prompt, b.contexts.prompt)


def test_reflections_run_while_others_are_sampled(early):
    batch, timeline = early
    assert sampled_beside(timeline) == (True, False)
    rollouts, reflections = (np.array(timeline["busy"][kind]) for kind in ("rollouts", "reflections"))
    assert ((rollouts > 0) & (reflections > 0)).any()
    assert len(batch.contexts.rows) > 16


def test_reflections_beside_rollouts_are_those_after_them(experiment, params, early):
    """Rows too short for longer reflection prompts, which then wait for the end of the rollouts."""
    short = dataclasses.replace(experiment.samplers["rollout"], new_tokens=40)
    batch, timeline = run(dataclasses.replace(experiment, samplers=experiment.samplers | {"rollout": short}), params)
    assert sampled_beside(timeline) == (True, True)
    assert_same_batch(batch, early[0])


@pytest.mark.parametrize(
    "fields",
    [
        dict(rollout__rounds=4),
        dict(reward__permute=True),
        dict(credit__context="answer"),
        dict(credit__baseline="batch"),
    ],
)
def test_what_may_change_is_decided_after_the_batch(finished, params, early, fields):
    experiment = make(finished, **fields)
    batch, timeline = run(experiment, params)
    assert "reflections" not in timeline["busy"] or not sampled_beside(timeline)[0]
    advantage, needs_teacher = decide(experiment, batch.rollouts, 0)
    np.testing.assert_array_equal(batch.advantage, advantage)
    assert [status != "not_needed" for status in batch.contexts.status] == needs_teacher.tolist()

    plain, groups = early[0], batch.rollouts.reward.reshape(4, 8)
    equal = np.ptp(groups, axis=1) == 0
    if "rollout__rounds" in fields:  # groups of equal rewards are replaced by those of further prompts
        assert (np.ptp(plain.rollouts.reward.reshape(4, 8), axis=1) == 0).any() and not equal.any()
        assert (
            batch.position == batch.data_metrics["data/prompts_drawn"] > plain.data_metrics["data/prompts_drawn"] == 4
        )
        assert batch.data_metrics["tokens/sampled"] > batch.rollouts.mask.sum()  # those of the groups left out too
        assert plain.data_metrics["tokens/sampled"] == plain.rollouts.mask.sum()
    else:
        np.testing.assert_array_equal(batch.rollouts.response, plain.rollouts.response)
        assert sorted(batch.rollouts.reward) == sorted(plain.rollouts.reward)
        assert (batch.rollouts.reward != plain.rollouts.reward).any() == ("reward__permute" in fields)


def test_the_device_is_not_asked_who_needs_a_teacher(experiment, early):
    """It is busy with other rollouts: waiting for it would leave it idle afterwards."""
    with jax.transfer_guard("disallow_explicit"):
        _, needs_teacher = decide(experiment, early[0].rollouts, 0)
    assert needs_teacher.all()


def test_a_penalty_for_length_changes_the_advantage_and_not_the_reward(finished):
    """All eight answers are right. The first has 96 tokens, so that with a buffer of 48 its penalty takes its whole reward."""
    experiment = make(finished, credit__rule="grpo", credit__normalize=False, reward__overlong_buffer=48)
    mask = (np.arange(96) < np.array([96] + [48] * 7)[:, None]).astype(np.float32)
    rollouts = tiny_rollouts([1] * 8, length=96, mask=mask)
    np.testing.assert_allclose(decide(experiment, rollouts, 0)[0], [-7 / 8] + [1 / 8] * 7, atol=1e-6)
    assert (rollouts.reward == 1).all()


def test_permuted_rewards_take_the_scores_along_and_leave_the_ranges():
    """Otherwise a control run's rule could read the true reward from a score."""
    rollouts = tiny_rollouts([1, 0, 1, 0, 0])
    verdicts = tuple(
        dataclasses.replace(verdict, scores={"lenient": float(i)}, spans={"answer": (i, i + 1)})
        for i, verdict in enumerate(rollouts.verdicts)
    )
    spans, scores = np.stack([np.arange(5), np.arange(5) + 1], axis=1), np.arange(5.0)
    rollouts = dataclasses.replace(rollouts, verdicts=verdicts, extras={"answer": spans, "lenient": scores})
    permuted = permute_rewards(rollouts, np.random.default_rng(0))
    order = [int(verdict.scores["lenient"]) for verdict in permuted.verdicts]
    assert sorted(order) == list(range(5)) != order
    assert permuted.extras["lenient"].tolist() == order and permuted.reward.tolist() == [
        rollouts.reward[i] for i in order
    ]
    assert [verdict.spans["answer"][0] for verdict in permuted.verdicts] == list(range(5))
    assert (permuted.extras["answer"] == spans).all() and (permuted.first_error == rollouts.first_error).all()
