"""Teacher parameters follow the policy as their kind says."""

import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.records import TrainState
from amrsd_jax.scoring.teachers import Teacher


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("policy", [1.0, 2.0, 3.0, 4.0]),
        ("initial", [0.0, 0.0, 0.0, 0.0]),
        ("snapshot", [0.0, 2.0, 2.0, 4.0]),  # refreshed after every second step
        ("ema", [0.5, 1.25, 2.125, 3.0625]),
    ],
)
def test_four_steps_by_hand(kind, expected):
    """The policy's one parameter is the number of steps done."""
    teacher = Teacher(kind, every=2, rate=0.5)
    state = TrainState({"w": jnp.zeros(1)}, None, jnp.zeros(()), {"w": jnp.zeros(1)} if teacher.kept else None)
    seen = []
    for steps in range(1, 5):
        state = teacher.follow(state.replace(params={"w": jnp.full(1, float(steps))}), steps)
        seen.append(float(teacher.params(state)["w"][0]))
    np.testing.assert_allclose(seen, expected)
