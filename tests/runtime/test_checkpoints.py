"""Checkpoints: what one mesh wrote, another reads; which are kept; what is not written."""

import jax
import numpy as np
import pytest

from amrsd_jax.config import OptimizerConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.records import TrainState
from amrsd_jax.runtime.checkpoints import Checkpoints, find_step, load_policy


def values(abstract, seed=0):
    """Random host arrays of given shapes."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda a: np.asarray(10 * generator.random(a.shape), a.dtype), abstract)


@pytest.mark.slow
def test_a_state_is_restored_on_another_mesh(policy, tmp_path):
    """Written on (8, 1, 1), read on (2, 2, 2): the same bits, each part where that mesh wants it."""
    config = OptimizerConfig(weight_decay=0.1)
    adam = make_optimizer(config, make_schedule(config, 1))
    eight, cube = meshes.make_mesh(8, 1, 1), meshes.make_mesh(2, 2, 2)
    abstract = abstract_state(policy, adam)
    state = jax.device_put(values(abstract), state_shardings(policy, adam, eight))

    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save(3, state, {"step": 3}, score=None)
    where = state_shardings(policy, adam, cube)
    restored, run = checkpoints.restore(3, abstract, where)
    checkpoints.close()
    assert run == {"step": 3}
    split = 0
    for a, b, sharding in zip(*map(jax.tree.leaves, (state, restored, where)), strict=True):
        assert b.sharding == sharding
        np.testing.assert_array_equal(a, b)
        split += len({str(shard.index) for shard in b.addressable_shards}) == 4
    assert split >= 3  # kernels and their moments, over fsdp and tensor

    folder = tmp_path / "checkpoints" / str(find_step(tmp_path)) / "state"
    params = load_policy(folder, abstract.params, where.params)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def small_state(value):
    return TrainState(
        {"w": jax.numpy.full(3, float(value))}, {}, jax.numpy.int32(value), None, {"f": jax.numpy.ones(2)}
    )


def test_the_latest_the_best_and_the_last_good_checkpoint_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step, score in enumerate([0.1, 0.9, None, 0.3, None]):
        checkpoints.save(step, small_state(step), {"step": step}, score, good=2 if step >= 2 else None)
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "4"]
    assert find_step(tmp_path) == 4 and find_step(tmp_path, 2) == 2
    with pytest.raises(FileNotFoundError, match=r"3.*\[1, 2, 4\]"):
        find_step(tmp_path, 3)


def test_a_rollback_replaces_what_changes_and_keeps_the_frozen_parameters(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, small_state(1), {"step": 1}, None)
    now = small_state(7)
    restored, run = checkpoints.replace(now, 1)
    checkpoints.close()
    assert restored.params["w"].tolist() == [1.0] * 3 and int(restored.updates) == 1 and run == {"step": 1}
    assert restored.frozen is now.frozen and now.params["w"].is_deleted()
