"""Checkpoints: what one mesh wrote, another reads."""

import jax
import numpy as np

from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning import step as steps
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.runtime.checkpoints import Checkpoints


def test_a_state_is_restored_on_another_mesh(policy, params, tmp_path):
    """Written on (8, 1, 1), read on (2, 2, 2): the same bits, each piece where that mesh wants it."""
    schedule = make_schedule(learning_rate=1.0, schedule="constant", warmup_updates=0, total_updates=1)
    adam = make_optimizer(schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)
    eight, cube = meshes.make_mesh(8, 1, 1), meshes.make_mesh(2, 2, 2)
    before = jax.device_put(params, meshes.shardings(params, eight))
    state = steps.init_state(policy, adam, before, eight)
    state = state.replace(opt_state=jax.tree.map(lambda a: a + 1, state.opt_state))  # moments that are not all zero

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, state, {"step": 3}, score=None)
    where = steps.state_shardings(policy, adam, cube)
    restored, run = checkpoints.restore(3, steps.abstract_state(policy, adam), where)
    checkpoints.close()
    assert run == {"step": 3}
    split = 0
    for a, b, sharding in zip(*map(jax.tree.leaves, (state, restored, where)), strict=True):
        assert b.sharding == sharding
        np.testing.assert_array_equal(a, b)
        split += len({str(shard.index) for shard in b.addressable_shards}) == 4
    assert split >= 3  # kernels and their moments, over fsdp and tensor
