"""Teacher parameters follow the policy as their kind says; a trust region lies between two distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.records import TrainState
from amrsd_jax.scoring.logprobs import token_logprobs
from amrsd_jax.scoring.teachers import Teacher


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
    teacher = Teacher(kind, policy, policy, every=2, rate=0.5)
    state = TrainState({"w": jnp.zeros(1)}, None, jnp.zeros(()), {"w": jnp.zeros(1)} if teacher.kept else None)
    seen = []
    for steps in range(1, 5):
        state = teacher.follow(state.replace(params={"w": jnp.full(1, float(steps))}), steps)
        seen.append(float(teacher.params(state)["w"][0]))
    np.testing.assert_allclose(seen, expected)


def test_a_trust_region_interpolates_log_probabilities(policy, params):
    """Against the whole table: share * log pi_current + (1 - share) * log pi_initial, normalised."""
    moved = jax.tree.map(lambda a: 0.5 * a, params)
    teacher = Teacher("trust_region", policy, rate=0.3)
    state = TrainState(moved, None, jnp.zeros(()), params)
    prompt, response = jnp.array([[5, 6, 7], [8, 9, 0]]), jnp.array([[4, 5], [6, 7]])
    length = jnp.array([3, 2])
    logp, entropy = token_logprobs(
        teacher.model, teacher.params(state), prompt, length, response, temperature=1.0, chunk=100
    )
    for row in range(2):
        ids = jnp.concatenate([prompt[row, : length[row]], response[row]])[None]
        tables = [jax.nn.log_softmax(policy.logits(p, policy.forward(p, ids))[0]) for p in (params, moved)]
        blend = jax.nn.log_softmax(0.7 * tables[0] + 0.3 * tables[1])[length[row] - 1 : -1]
        np.testing.assert_allclose(logp[row], blend[jnp.arange(2), response[row]], atol=1e-4)
        np.testing.assert_allclose(entropy[row], -(jnp.exp(blend) * blend).sum(axis=-1), atol=1e-4)
