"""The teacher's parameters follow the policy as its kind says; a trust region lies between two distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.config import TeacherConfig
from amrsd_jax.learning.state import policy_params
from amrsd_jax.records import TrainState
from amrsd_jax.scoring.logprobs import token_logprobs
from amrsd_jax.scoring.teachers import Blend, Teacher


def state_of(params, teacher=None, frozen=None):
    return TrainState(params, None, jnp.zeros(()), teacher, frozen)


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("policy", [1.0, 2.0, 3.0, 4.0]),
        ("initial", [0.0, 0.0, 0.0, 0.0]),
        ("external", [0.0, 0.0, 0.0, 0.0]),
        ("snapshot", [0.0, 2.0, 2.0, 4.0]),  # refreshed after every second step
        ("ema", [0.5, 1.25, 2.125, 3.0625]),
    ],
)
def test_four_steps_by_hand(kind, expected, policy):
    """The policy's one parameter is the number of steps done."""
    teacher = Teacher(TeacherConfig(kind=kind, every=2, rate=0.5), policy, policy)
    state = state_of({"w": jnp.zeros(1)}, {"w": jnp.zeros(1)} if teacher.stored else None)
    values = []
    for steps in range(1, 5):
        state = teacher.follow(state.replace(params={"w": jnp.full(1, float(steps))}), steps)
        params = teacher.params(state, policy_params(state))
        values.append(float(params["w"][0]))
    assert values == expected
    assert (params is policy_params(state)) == (kind == "policy")
    assert teacher.model == policy


def test_a_snapshot_survives_the_donation_of_what_it_was_taken_from(policy):
    teacher = Teacher(TeacherConfig(kind="snapshot", every=1), policy)
    state = teacher.follow(state_of({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}), 1)
    state.params["w"].delete()
    assert state.teacher["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["initial", "snapshot", "ema", "trust_region"])
def test_a_policy_with_adapters_shares_its_frozen_parameters(kind, policy):
    frozen, adapters = {"layers": {"query": {"kernel": jnp.ones(2)}}}, {"layers": {"query": {"lora_a": jnp.ones(1)}}}
    state = state_of(adapters, jax.tree.map(jnp.zeros_like, adapters), frozen)
    teacher = Teacher(TeacherConfig(kind=kind), policy)
    params = teacher.params(state, policy_params(state))
    if kind == "trust_region":
        assert isinstance(teacher.model, Blend)
        params, current = params
        assert current["layers"]["query"]["lora_a"] is adapters["layers"]["query"]["lora_a"]
    query = params["layers"]["query"]
    assert query["kernel"] is frozen["layers"]["query"]["kernel"]
    assert query["lora_a"] is state.teacher["layers"]["query"]["lora_a"]


@pytest.mark.slow
def test_a_trust_region_interpolates_log_probabilities(policy, params):
    """Against the whole table: rate log pi_current + (1 - rate) log pi_initial, normalised."""
    teacher = Teacher(TeacherConfig(kind="trust_region", rate=0.3), policy)
    current = jax.tree.map(lambda a: 0.5 * a, params)
    prompt, length, response = jnp.array([[5, 6, 7], [8, 9, 0]]), jnp.array([3, 2]), jnp.array([[4, 5], [6, 7]])
    scores = jax.jit(lambda p: token_logprobs(teacher.model, p, prompt, length, response, temperature=1.0, chunk=100))
    logprobs, entropy = scores(teacher.params(state_of(current, params), current))

    rows = jnp.array([[5, 6, 7, 4, 5], [8, 9, 6, 7, 0]])
    table = jax.jit(lambda p: jax.nn.log_softmax(policy.logits(p, policy.forward(p, rows))))
    blend = jax.nn.log_softmax(0.7 * table(params) + 0.3 * table(current))
    for row, start in enumerate((2, 1)):
        expected = blend[row, start : start + 2]
        np.testing.assert_allclose(logprobs[row], expected[jnp.arange(2), response[row]], atol=1e-4)
        np.testing.assert_allclose(entropy[row], -(jnp.exp(expected) * expected).sum(axis=-1), atol=1e-4)
