"""Checkpoints of a run: asynchronous, atomic, the latest few and the best, restored straight into their shardings."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from amrsd_jax.policy import lora
from amrsd_jax.records import TrainState


class Checkpoints:
    """The checkpoint folder of a run. A step's folder appears under its final name only when it is complete.

    Args:
      folder: created if absent; remains of a killed write are removed.
      keep: latest checkpoints kept; the one with the best `score` and the last good one are kept besides. None only reads, so
        that the folder of a run that is still going is left alone.
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
        """Starts writing; returns once the arrays are copied, so they may be donated. A frozen base is not written.

        Args:
          run: what the host must remember.
          score: accuracy at this step, if it was measured.
          good: step of the checkpoint to go back to, this one or an earlier one; it is kept until there is another.
        """
        self._good.step = good
        state = state.replace(params=lora.learns(state.params))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        metrics = None if score is None else {"score": score}
        self._manager.save(step, args=items, metrics=metrics, force=True)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State in the given shardings, and what the host remembered."""
        wanted = jax.tree.map(
            lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), run=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored.state, restored.run

    def replace(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """`restore` in place of a state, which is freed first, but for a frozen base: there is never memory for two."""
        self._manager.wait_until_finished()
        base, learned = lora.split(state.params)
        state = state.replace(params=learned)
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
        shardings = jax.tree.map(lambda a: a.sharding, state)
        jax.tree.map(lambda a: a.delete(), state)
        restored, run = self.restore(step, abstract, shardings)
        return restored.replace(params=lora.join(base, restored.params)), run

    def close(self) -> None:
        """Waits for the last write."""
        self._manager.wait_until_finished()
        self._manager.close()


@dataclasses.dataclass
class _Good(policies.PreservationPolicy):
    """Keeps one named step."""

    step: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def find_step(workdir: Path, step: int | None = None) -> int:
    """The step of a run's newest complete checkpoint, or the given one.

    Raises:
      FileNotFoundError: there is none; the message lists those there are.
    """
    steps = sorted(int(path.parent.name) for path in (workdir / "checkpoints").glob("[0-9]*/state"))
    if not steps or step not in (None, *steps):
        raise FileNotFoundError(
            f"{workdir / 'checkpoints'}: no checkpoint {'' if step is None else step}; there are those of steps {steps}"
        )
    return steps[-1] if step is None else step


def save_params(folder: Path, params: Any) -> None:
    """Writes one parameter tree; the folder appears when it is complete."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params, force=True)


def load_params(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Reads one parameter tree into the given shardings."""
    wanted = jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), wanted)


def load_policy(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Reads the policy's parameters alone out of a checkpoint's `state` folder: neither moments nor teacher."""
    wanted = jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings)
    how = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(item={"params": wanted}, restore_args={"params": how}, partial_restore=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), args=args)["params"]
