"""Writes checkpoints asynchronously and atomically, checks their files, and restores them directly into their shardings.

A checkpoint holds `checksums.json`, the size and CRC-32 of each of its files, written before its folder gets its final name. A
checkpoint whose files are not those is damaged, and the newest whole one takes its place.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from amrsd_jax import processes
from amrsd_jax.files import read_object
from amrsd_jax.names import first_line
from amrsd_jax.records import TrainState
from amrsd_jax.runtime.console import note

CHECKSUMS = "checksums.json"
_PATIENCE = 6 * 3600  # seconds in which process 0 must have read what all have written, while the others wait
_RECORD = "_CHECKPOINT_METADATA"  # the library's own, which it still changes after the checksums are taken


class Checkpoints:
    """The checkpoint folder of a run. A step's folder appears under its final name only when it is complete.

    Args:
      folder: created if absent; remains of a killed write are removed. Damaged checkpoints are moved to `<folder>.damaged`, so
        that the run can write those steps again: the ones newer than the newest whole one, and any without readable parts.
      keep: number of latest checkpoints that are kept, besides those that `save` names. None opens the folder for reading only,
        so that a run in progress is not disturbed.
    """

    def __init__(self, folder: Path, keep: int | None):
        self._folder = folder.absolute()
        self._read_only = keep is None
        if keep is None:
            self._newest = newest_whole(folder)
            options = ocp.CheckpointManagerOptions(read_only=True, create=False)
            self._manager = ocp.CheckpointManager(self._folder, options=options)
            return
        # The library reads the folder's names once, on every process, and so after this.
        processes.from_first(lambda: _set_damaged_aside(folder))
        self._named = _Named()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(n=keep), self._named]),
                cleanup_tmp_directories=True,
                async_options=_with_checksums(self._folder, "*"),
            ),
        )

    def save(self, step: int, state: TrainState, run: dict[str, Any], keep: Collection[int | None] = ()) -> None:
        """Starts writing, and returns once the arrays are copied, so they may be donated. Frozen parameters are not written.

        Args:
          run: the host's progress, representable in JSON.
          keep: steps whose checkpoints are kept until another call names others, such as the best one.

        Raises:
          OSError: this checkpoint, or the one before, could not be written.
        """
        self._named.steps = keep
        state = state.replace(frozen=None)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        with _named(self._folder, "a checkpoint could not be written"):
            self._manager.save(step, args=items, force=True)

    def latest(self) -> int | None:
        """Returns the step of the newest whole checkpoint, None if there is none."""
        return self._newest if self._read_only else self._manager.latest_step()

    def damage(self, step: int) -> str:
        """Returns what is wrong with the checkpoint of a step, see `damage`; "" for a whole one."""
        self._manager.wait_until_finished()
        return processes.from_first(lambda: damage(self._folder / str(step)))

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state in the given shardings, and the host's progress."""
        target = _with_shardings(abstract, shardings)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), run=ocp.args.JsonRestore())
        with _named(self._folder / str(step), "cannot be read"):
            restored = self._manager.restore(step, args=items)
        return restored.state, restored.run

    def replace(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Restores in place of a state, whose trained arrays are freed first, since there may not be memory for both."""
        self._manager.wait_until_finished()
        frozen, state = state.frozen, state.replace(frozen=None)
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
        shardings = jax.tree.map(lambda a: a.sharding, state)
        jax.tree.map(lambda a: a.delete(), state)
        restored, run = self.restore(step, abstract, shardings)
        return restored.replace(frozen=frozen), run

    def close(self) -> None:
        """Waits for the last write, and closes the folder.

        Raises:
          OSError: the last checkpoint could not be written.
        """
        with _named(self._folder, "a checkpoint could not be written"):
            self._manager.wait_until_finished()
            self._manager.close()


def _with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns the shapes of a tree with the given shardings."""
    return jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings)


@dataclasses.dataclass
class _Named(policies.PreservationPolicy):
    """Preserves named steps."""

    steps: Collection[int | None] = ()

    def should_preserve(self, checkpoints, *, context):
        return [checkpoint.step in self.steps for checkpoint in checkpoints]


@contextlib.contextmanager
def _named(place: Path, message: str) -> Iterator[None]:
    """Turns whatever the checkpoint library raises into an OSError of one line that names the place.

    The library may copy arrays to and from the host by operations that a transfer guard takes for unintended.
    """
    try:
        with jax.transfer_guard("allow"):
            yield
    except Exception as error:
        raise OSError(f"{place}: {message}: {first_line(error)}") from error


# ---------------------------------------------------------------- whole and damaged checkpoints


def _with_checksums(parent: Path, name: str) -> ocp.AsyncOptions:
    """Returns options that add checksums to a folder `name` (a pattern) of `parent` before it gets its final name."""

    @processes.only_first
    def add() -> None:
        for draft in parent.glob(f"{name}.orbax-checkpoint-tmp*"):
            (draft / CHECKSUMS).write_text(json.dumps(checksums(draft), indent=1))

    return ocp.AsyncOptions(post_finalization_callback=add, timeout_secs=_PATIENCE)


def checksums(folder: Path, chosen: Callable[[str], bool] = lambda name: True) -> dict[str, list[int]]:
    """Returns the size and CRC-32 of the files of a folder by their relative paths, those whose path is `chosen`."""

    def fail(error: OSError) -> None:  # a folder that cannot be listed is not an empty one, as `rglob` has it
        raise error

    files = (Path(place, name) for place, _, names in os.walk(folder, onerror=fail) for name in names)
    names = sorted(str(path.relative_to(folder)) for path in files)
    names = [name for name in names if name not in (CHECKSUMS, _RECORD) and chosen(name)]
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(names, threads.map(lambda name: _checksum(folder / name), names), strict=True))


def _checksum(path: Path) -> list[int]:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def damage(folder: Path, *, arrays: bool = True) -> str:
    """Returns what is wrong with the files of a checkpoint; "" if they are those that were written.

    A checkpoint without checksums was written by an earlier version; only its parts are looked for.

    Args:
      arrays: whether to check the arrays too, for which all bytes are read.

    Raises:
      OSError: a file is there and cannot be read now.
    """
    for part in ("state", "run"):
        if not (folder / part).is_dir():
            return f"no {part}"
    return _damage(folder, lambda name: arrays or not name.startswith("state"))


def _damage(folder: Path, chosen: Callable[[str], bool] = lambda name: True) -> str:
    try:
        read_object(folder / _RECORD)
        path = folder / CHECKSUMS
        expected = read_object(path) if path.exists() else {}
        expected = {name: (size, crc) for name, (size, crc) in expected.items() if chosen(name)}
        found = checksums(folder, expected.__contains__)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    except OSError as error:  # of a disk or network: the files may be whole, and are not to be set aside
        raise OSError(f"{folder}: cannot be read: {first_line(error)}") from error
    for name, (size, crc) in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name][0] != size:
            return f"{name} has {found[name][0]} of {size} bytes"
        if found[name][1] != crc:
            return f"the content of {name} has changed"
    return ""


def steps_in(folder: Path) -> list[int]:
    """Returns the steps of a folder's checkpoints, whole or not, in ascending order."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    return sorted(int(one.name) for one in entries if re.fullmatch("0|[1-9][0-9]*", one.name) and one.is_dir())


def newest_whole(folder: Path, most: int | None = None) -> int | None:
    """Returns the newest step whose checkpoint is whole, None if there is none, and prints which newer checkpoints are damaged.

    Args:
      most: the largest step that is looked at; None for all.

    Raises:
      OSError: a checkpoint is there and cannot be read now.
    """

    def search() -> int | None:
        for step in reversed(steps_in(folder)):
            if most is None or step <= most:
                if not (fault := damage(folder / str(step))):
                    return step
                note(f"checkpoint {step} is damaged: {fault} (in {folder / str(step)})")
        return None

    return processes.from_first(search)


def _set_damaged_aside(folder: Path) -> None:
    whole, steps = False, steps_in(folder)
    for step in reversed(steps):
        place = folder / str(step)
        if fault := damage(place, arrays=not whole):
            aside = folder.with_name(f"{folder.name}.damaged") / str(step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            place.rename(aside)
            note(f"checkpoint {step} is damaged: {fault}; moved to {aside}")
        else:
            whole = True
    if steps and not whole:
        note("no checkpoint is whole: the run starts again at step 0")


def find_step(workdir: Path, step: int | None = None) -> int:
    """Returns the step of a run's newest whole checkpoint, or the given one if it is whole.

    Raises:
      FileNotFoundError: there is no such checkpoint; the message lists the steps that exist.
      OSError: a checkpoint is there and cannot be read now.
      ValueError: the given checkpoint is damaged.
    """
    folder = workdir / "checkpoints"
    steps = steps_in(folder)
    if not steps or step not in (None, *steps):
        missing = "no checkpoint" if step is None else f"no checkpoint {step}; expected one of steps {steps}"
        raise FileNotFoundError(f"{folder}: {missing}")
    if step is None:
        if (newest := newest_whole(folder)) is None:
            raise FileNotFoundError(f"{folder}: no whole checkpoint; those of steps {steps} are damaged")
        return newest
    if fault := damage(folder / str(step)):
        raise ValueError(f"{folder / str(step)}: damaged: {fault}")
    return step


# ---------------------------------------------------------------- parameters alone


def save_params(folder: Path, params: Any) -> None:
    """Writes a parameter tree; the folder appears when it is complete."""
    folder = folder.absolute()
    with (
        _named(folder, "could not be written"),
        ocp.StandardCheckpointer(async_options=_with_checksums(folder.parent, folder.name)) as checkpointer,
    ):
        checkpointer.save(folder, params, force=True)


def load_params(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Returns a saved parameter tree in the given shardings.

    Raises:
      OSError: it cannot be read.
      ValueError: its files are not those that were written.
    """
    if fault := processes.from_first(lambda: _damage(folder) if (folder / CHECKSUMS).exists() else ""):
        raise ValueError(f"{folder}: damaged: {fault}")
    with _named(folder, "cannot be read"), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), _with_shardings(abstract, shardings))


def load_policy(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Returns the policy's parameters from a checkpoint's `state` folder, without reading moments or teacher."""
    target = _with_shardings(abstract, shardings)
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    args = ocp.args.PyTreeRestore(item={"params": target}, restore_args={"params": restore_args}, partial_restore=True)
    with _named(folder, "cannot be read"), ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), args=args)["params"]
