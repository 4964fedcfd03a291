"""Drawing a step: groups are verified, and reflections asked for, while others are still being sampled."""

import dataclasses

import jax
import numpy as np
import pytest

from amrsd_jax import draw as drawing
from amrsd_jax.build import build
from amrsd_jax.config import resolve
from amrsd_jax.draw import draw
from amrsd_jax.learning.step import init_params
from amrsd_jax.rng import key
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.sampling import engine
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Reflections fit into the rows of rollouts, and half of the rollouts at a time into the slots."""
    config = tiny_config(rollout__response_length=112, rollout__slots=16, credit__exact_savings=False, steps=1)
    return build(resolve(config), tmp_path_factory.mktemp("draw"))


@pytest.fixture(scope="module")
def weights(run):
    return run.sampling_weights(init_params(run.policy, key(0, "init"), run.mesh))


def contexts(run, drawn, weights):
    """Contexts of a step, and the rows that its sampler was asked for after the drawing."""
    writers, late = run.writers(weights, None, 0, Clock()), []
    policy = writers.policy

    def sampler(requests):
        requests = list(requests)
        late.extend(request.row for request in requests)
        return policy(requests)

    writers = dataclasses.replace(writers, policy=drawn.first(sampler))
    return run.make_contexts(drawn.rollouts, np.ones(32, bool), writers), late


def test_reflections_asked_for_early_are_those_asked_for_late(run, weights, monkeypatch):
    early = draw(run, weights, 0, 0, Clock())
    monkeypatch.setattr(type(run), "reflects_early", False)
    late = draw(run, weights, 0, 0, Clock())
    assert sorted(c.request.row for c in early.reflections) == list(range(32)) and not late.reflections
    for field in ("response", "logp", "reward", "prompt"):
        np.testing.assert_array_equal(getattr(early.rollouts, field), getattr(late.rollouts, field))
    (ours, asked), (theirs, all_asked) = contexts(run, early, weights), contexts(run, late, weights)
    assert asked == [] and all_asked == list(range(32))
    assert (ours.kind, ours.status, ours.text) == (theirs.kind, theirs.status, theirs.text)
    np.testing.assert_array_equal(ours.context, theirs.context)


def test_they_are_sampled_before_the_last_rollout_is_there(run, weights, monkeypatch):
    streams, harvests = [], engine.harvests

    def watched(*args):
        for finished in harvests(*args):
            streams.extend(c.request.stream for c in finished)
            yield finished

    monkeypatch.setattr(drawing, "harvests", watched)
    draw(run, weights, 0, 0, Clock())
    assert streams.index(drawing.REFLECTIONS) < len(streams) - 1 - streams[::-1].index(drawing.ANSWERS)


def test_who_is_asked_is_decided_without_the_device(run, weights):
    """Which is busy with other rollouts: what waits for it would leave it idle afterwards."""
    rollouts = draw(run, weights, 0, 0, Clock()).rollouts
    with jax.transfer_guard("disallow_explicit"):
        asked = list(drawing.reflect(run, rollouts, list(range(0, 32, run.config.rollout.group)), 0))
    assert [request.row for request in asked] == list(range(32))


def test_a_reflection_without_room_beside_rollouts_is_asked_for_late(run, weights):
    layouts = run.layouts | {"rollout": dataclasses.replace(run.layouts["rollout"], new_tokens=80)}  # 96 tokens a row
    narrow = dataclasses.replace(run, layouts=layouts)
    drawn = draw(narrow, weights, 0, 0, Clock())
    early = {c.request.row for c in drawn.reflections}
    assert all(len(c.request.prompt) + 16 <= 96 for c in drawn.reflections) and len(early) < 32
    assert set(contexts(narrow, drawn, weights)[1]) == set(range(32)) - early


@pytest.mark.parametrize("field", [dict(rollout__rounds=2), dict(reward__permute=True), dict(credit__context="answer")])
def test_nothing_is_asked_for_early_that_may_change(tmp_path, field):
    assert not build(resolve(tiny_config(**field)), tmp_path).reflects_early
