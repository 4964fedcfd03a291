"""Writes checkpoints asynchronously and atomically, and restores them directly into their shardings."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from amrsd_jax.records import TrainState


class Checkpoints:
    """The checkpoint folder of a run. A step's folder appears under its final name only when it is complete.

    Args:
      folder: created if absent; remains of a killed write are removed.
      keep: number of latest checkpoints that are kept, besides the one with the best `score` and the last good one. None opens
        the folder for reading only, so that a run in progress is not disturbed.
    """

    def __init__(self, folder: Path, keep: int | None):
        if keep is None:
            self._manager = ocp.CheckpointManager(
                folder.absolute(), options=ocp.CheckpointManagerOptions(read_only=True, create=False)
            )
            return
        latest = policies.LatestN(n=keep)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
        )
        self._good = _Good()
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([latest, best, self._good]),
                cleanup_tmp_directories=True,
            ),
        )

    def save(
        self, step: int, state: TrainState, run: dict[str, Any], score: float | None, good: int | None = None
    ) -> None:
        """Starts writing, and returns once the arrays are copied, so they may be donated. Frozen parameters are not written.

        Args:
          run: the host's progress, representable in JSON.
          score: accuracy at this step, if it was measured.
          good: step of the checkpoint to roll back to, this one or an earlier one; it is kept until `good` changes.
        """
        self._good.step = good
        state = state.replace(frozen=None)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        metrics = None if score is None else {"score": score}
        self._manager.save(step, args=items, metrics=metrics, force=True)

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state in the given shardings, and the host's progress."""
        target = _with_shardings(abstract, shardings)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), run=ocp.args.JsonRestore())
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
        """Waits for the last write, and closes the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


def _with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns the shapes of a tree with the given shardings."""
    return jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings)


@dataclasses.dataclass
class _Good(policies.PreservationPolicy):
    """Preserves one named step."""

    step: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def find_step(workdir: Path, step: int | None = None) -> int:
    """Returns the step of a run's newest complete checkpoint, or the given one if it exists.

    Raises:
      FileNotFoundError: there is no such checkpoint; the message lists the steps that exist.
    """
    steps = sorted(int(path.parent.name) for path in (workdir / "checkpoints").glob("[0-9]*/state"))
    if not steps or step not in (None, *steps):
        missing = "no checkpoint" if step is None else f"no checkpoint {step}; expected one of steps {steps}"
        raise FileNotFoundError(f"{workdir / 'checkpoints'}: {missing}")
    return steps[-1] if step is None else step


def save_params(folder: Path, params: Any) -> None:
    """Writes a parameter tree; the folder appears when it is complete."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params, force=True)


def load_params(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Returns a saved parameter tree in the given shardings."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), _with_shardings(abstract, shardings))


def load_policy(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Returns the policy's parameters from a checkpoint's `state` folder, without reading moments or teacher."""
    target = _with_shardings(abstract, shardings)
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    args = ocp.args.PyTreeRestore(item={"params": target}, restore_args={"params": restore_args}, partial_restore=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), args=args)["params"]
