"""Checkpoints of a run: asynchronous, atomic, the latest few and the best, restored straight into their shardings."""

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
      keep: latest checkpoints kept; the one with the best `score` is kept besides. None only reads, so that the folder of
        a run that is still going is left alone.
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
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([latest, best]),
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: TrainState, run: dict[str, Any], score: float | None) -> None:
        """Starts writing; returns once the arrays are copied, so they may be donated. `run` is what the host must remember."""
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

    def close(self) -> None:
        """Waits for the last write."""
        self._manager.wait_until_finished()
        self._manager.close()


def save_params(folder: Path, params: Any) -> None:
    """Writes one parameter tree; the folder appears when it is complete."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params, force=True)


def load_params(folder: Path, abstract: Any, shardings: Any) -> Any:
    """Reads one parameter tree into the given shardings."""
    wanted = jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute(), wanted)
