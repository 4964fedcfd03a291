"""Meshes, shardings and the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.config import OptimizerConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import state_shardings


def optimizer_of(**fields):
    config = OptimizerConfig(**fields)
    return make_optimizer(config, make_schedule(config, 1))


def test_sizes_that_do_not_fit_a_mesh_are_named():
    mesh = meshes.make_mesh(2, 4, 1)
    with pytest.raises(ValueError, match="scoring.rows = 12.*8"):
        meshes.check_divides("scoring.rows", 12, mesh)
    with pytest.raises(ValueError, match=r"\(16, 1, 1\).*16.*8"):
        meshes.make_mesh(16, 1, 1)
    with pytest.raises(ValueError, match="3.*8 devices"):
        meshes.make_mesh(-1, 3, 1)
    assert dict(meshes.make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


def test_parameters_that_cannot_be_split_are_listed_and_replicated(policy):
    mesh = meshes.make_mesh(1, 1, 5, devices=jax.devices()[:5])
    listed = meshes.replicated_by_size(policy.abstract_params(), mesh)
    assert any(line.startswith("embed/embedding: 48") and line.endswith("tensor = 5") for line in listed)
    where = meshes.shardings(policy.abstract_params(), mesh)
    assert where["embed"]["embedding"].spec == jax.sharding.PartitionSpec(None, "fsdp")


def test_moments_are_sharded_like_their_parameters(policy):
    where = state_shardings(policy, optimizer_of(), meshes.make_mesh(2, 2, 2))
    assert where.params["layers"]["gate"]["kernel"].spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")
    assert jax.tree.leaves(where.opt_state[1].mu) == jax.tree.leaves(where.params)


@pytest.mark.parametrize(
    "schedule, warmup, at, expected",
    [
        ("constant", 2, [0, 1, 2, 11], [0.5, 1, 1, 1]),
        ("linear", 2, [2, 7, 12], [1, 0.5, 0]),
        ("cosine", 0, [0, 6, 12], [1, 0.5, 0]),
    ],
)
def test_schedules_by_hand(schedule, warmup, at, expected):
    rate = make_schedule(OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_updates=warmup), 12)
    np.testing.assert_allclose([float(rate(i)) for i in at], expected, atol=1e-6)


def test_two_updates_by_hand():
    """The first gradient has norm 5 and is clipped to norm 1, (0.6, 0.8); the second has norm 0.5 and is not clipped."""
    adam = optimizer_of(learning_rate=0.1, b1=0.5, b2=0.75, eps=0.2, weight_decay=0.5, clip_norm=1.0)
    params = {"kernel": jnp.ones(2)}
    first, state = adam.update({"kernel": jnp.array([3.0, 4.0])}, adam.init(params), params)
    np.testing.assert_allclose(first["kernel"], [-0.1 * (0.6 / 0.8 + 0.5), -0.1 * (0.8 / 1.0 + 0.5)], rtol=1e-5)
    second, _ = adam.update({"kernel": jnp.array([0.0, 0.5])}, state, params)
    # Means 0.5 * 0.5 * 0.6 = 0.15 and 0.5 * 0.5 * 0.8 + 0.5 * 0.5 = 0.45, over 1 - 0.5^2; squares 0.75 * 0.25 * 0.36 = 0.0675
    # and 0.75 * 0.25 * 0.64 + 0.25 * 0.25 = 0.1825, over 1 - 0.75^2.
    expected = [-0.1 * (m / 0.75 / ((v / 0.4375) ** 0.5 + 0.2) + 0.5) for m, v in ((0.15, 0.0675), (0.45, 0.1825))]
    np.testing.assert_allclose(second["kernel"], expected, rtol=1e-5)


def test_only_matrices_decay(policy, params):
    adam = optimizer_of(weight_decay=0.5, clip_norm=0.0)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(adam.update)(zero, jax.jit(adam.init)(params), params)
    assert np.asarray(updates["layers"]["gate"]["kernel"]).any() and np.asarray(updates["embed"]["embedding"]).any()
    assert not np.asarray(updates["layers"]["ffn_norm"]["scale"]).any()
