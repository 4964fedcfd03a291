"""Checkpoints: what one mesh wrote, another reads; which are kept; what is not written; which are damaged."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.config import OptimizerConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.records import TrainState
from amrsd_jax.runtime.checkpoints import Checkpoints, damage, find_step, load_params, load_policy, save_params


def values(abstract, seed=0):
    """Returns random host arrays of the given shapes."""
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
    checkpoints.save(3, state, {"step": 3})
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


def test_the_latest_and_the_named_checkpoints_are_kept(tmp_path):
    """Also by a run that was resumed since they were written."""
    for steps in ((0, 1, 2), (3, 4)):
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
        for step in steps:
            checkpoints.save(step, small_state(step), {"step": step}, keep=(1, 2, None))
        checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "4"]
    assert find_step(tmp_path) == 4 and find_step(tmp_path, 2) == 2
    with pytest.raises(FileNotFoundError, match=r"3.*\[1, 2, 4\]"):
        find_step(tmp_path, 3)


def test_the_library_may_transfer_where_a_guard_forbids_it(tmp_path, monkeypatch):
    """On an accelerator it copies arrays in a way that the training loop's guard refuses; on a CPU this stands for it."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    save, restore = checkpoints._manager.save, checkpoints._manager.restore
    for name, call in (("save", save), ("restore", restore)):

        def transferring(*args, call=call, **named):
            assert (jnp.zeros(2) + np.ones(2)).sum() == 2  # an implicit transfer
            return call(*args, **named)

        monkeypatch.setattr(checkpoints._manager, name, transferring)
    state = small_state(1)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed"):
            jnp.zeros(2) + np.ones(2)
        checkpoints.save(1, state, {"step": 1})
        restored, _ = checkpoints.replace(state, 1)
    checkpoints.close()
    assert restored.params["w"].tolist() == [1.0] * 3


def test_a_rollback_replaces_what_changes_and_keeps_the_frozen_parameters(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, small_state(1), {"step": 1})
    now = small_state(7)
    restored, run = checkpoints.replace(now, 1)
    checkpoints.close()
    assert restored.params["w"].tolist() == [1.0] * 3 and int(restored.updates) == 1 and run == {"step": 1}
    assert restored.frozen is now.frozen and now.params["w"].is_deleted()


# ---------------------------------------------------------------- damage


def files(folder):
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.stat().st_size, path))


def largest(folder):
    return files(folder)[-1]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def empty(folder):
    for path in files(folder):
        os.truncate(path, 0)


DAMAGE = {
    "halved": lambda newest: os.truncate(largest(newest / "state"), largest(newest / "state").stat().st_size // 2),
    "one byte of an array": lambda newest: flip(largest(newest / "state" / "ocdbt.process_0")),
    "one byte of the progress": lambda newest: flip(largest(newest / "run")),
    "all files empty": empty,
    "state empty": lambda newest: empty(newest / "state"),
    "no state": lambda newest: shutil.rmtree(newest / "state"),
    "no progress": lambda newest: shutil.rmtree(newest / "run"),
    "one file missing": lambda newest: largest(newest / "state").unlink(),
    "the library's record missing": lambda newest: (newest / "_CHECKPOINT_METADATA").unlink(),
    "checksums cut": lambda newest: os.truncate(newest / "checksums.json", 9),
    "checksums of another form": lambda newest: (newest / "checksums.json").write_text('{"state/_METADATA": 3}'),
    "an empty folder": lambda newest: (newest.parent / "99").mkdir(),
    "a folder of parts": lambda newest: [
        (newest.parent / "99" / part).mkdir(parents=True) for part in ("state", "run")
    ],
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A workdir with the checkpoints of three steps."""
    workdir = tmp_path_factory.mktemp("three")
    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, small_state(step), {"step": step})
    checkpoints.close()
    return workdir


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_whole_checkpoint_is_found_and_restored(three, tmp_path, capsys, kind):
    workdir = shutil.copytree(three, tmp_path / "run")
    folder = workdir / "checkpoints"
    assert damage(folder / "3") == ""
    DAMAGE[kind](folder / "3")
    step = 99 if (folder / "99").exists() else 3
    newest = 3 if step == 99 else 2
    assert find_step(workdir) == newest and f"checkpoint {step} is damaged" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"checkpoints/{step}: damaged"):
        find_step(workdir, step)

    checkpoints = Checkpoints(folder, keep=3)
    assert checkpoints.latest() == newest and f"checkpoint {step} is damaged" in capsys.readouterr().err
    state, run = checkpoints.restore(newest, *abstract_and_shardings(small_state(0)))
    assert state.params["w"].tolist() == [newest] * 3 and run == {"step": newest}
    checkpoints.save(newest + 1, small_state(7), {"step": newest + 1})  # the damaged one is not in the way
    checkpoints.close()
    assert find_step(workdir) == newest + 1


@pytest.mark.parametrize("unlisted", [None, "3/state", "/checkpoints"])
def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(three, tmp_path, monkeypatch, unlisted):
    """As on a network's file system: the checkpoint may be whole, and without it the run would begin again."""
    folder = shutil.copytree(three, tmp_path / "run") / "checkpoints"

    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def lists(path, scandir=os.scandir):
        return fails(path) if str(path).endswith(unlisted) else scandir(path)

    places = {"amrsd_jax.runtime.checkpoints._checksum": fails} if unlisted is None else {"os.scandir": lists}
    with monkeypatch.context() as patch:
        for name, function in places.items():
            patch.setattr(name, function)
        with pytest.raises(OSError, match="Input/output error"):
            Checkpoints(folder, keep=3)
    assert find_step(tmp_path / "run") == 3


def abstract_and_shardings(state):
    state = state.replace(frozen=None)
    return jax.eval_shape(lambda: state), jax.tree.map(lambda a: a.sharding, state)


def test_a_damaged_record_of_an_older_checkpoint_does_not_stop_a_run(three, tmp_path):
    workdir = shutil.copytree(three, tmp_path / "run")
    os.truncate(workdir / "checkpoints" / "1" / "_CHECKPOINT_METADATA", 0)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    checkpoints.close()
    assert checkpoints.latest() == 3 and not (workdir / "checkpoints" / "1").exists()


def test_a_run_without_any_whole_checkpoint_has_none(three, tmp_path):
    workdir = shutil.copytree(three, tmp_path / "run")
    for step in "123":
        empty(workdir / "checkpoints" / step)
    with pytest.raises(FileNotFoundError, match=r"no whole checkpoint; those of steps \[1, 2, 3\]"):
        find_step(workdir)
    assert Checkpoints(workdir / "checkpoints", keep=None).latest() is None


def test_checkpoints_without_checksums_are_those_of_earlier_versions(three, tmp_path):
    workdir = shutil.copytree(three, tmp_path / "run")
    (workdir / "checkpoints" / "3" / "checksums.json").unlink()
    assert find_step(workdir) == 3
    os.truncate(largest(workdir / "checkpoints" / "3" / "state"), 9)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    with pytest.raises(OSError, match="checkpoints/3: cannot be read"):
        checkpoints.restore(3, *abstract_and_shardings(small_state(0)))


def test_damaged_parameters_are_named(tmp_path):
    params = {"w": jax.numpy.ones(3)}
    save_params(tmp_path / "warmup", params)
    where = jax.tree.map(lambda a: a.sharding, params)
    assert load_params(tmp_path / "warmup", jax.eval_shape(lambda: params), where)["w"].tolist() == [1.0] * 3
    flip(largest(tmp_path / "warmup" / "ocdbt.process_0"))
    with pytest.raises(ValueError, match="warmup: damaged"):
        load_params(tmp_path / "warmup", jax.eval_shape(lambda: params), where)
