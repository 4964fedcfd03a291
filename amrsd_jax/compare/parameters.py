"""Whose parameters score frozen rollouts: those of the nearest checkpoint before them, and the teacher's."""

import dataclasses
from pathlib import Path

from amrsd_jax.build import Run
from amrsd_jax.learning.step import abstract_state, state_shardings
from amrsd_jax.policy import Params, lora
from amrsd_jax.runtime.checkpoints import load_params
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.start import initial_params


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What students and teachers are made of.

    Attributes:
      policy: near those that the rollouts were sampled from.
      initial: those of step 0.
      kept: the run's own teacher, of `kept_kind`; None where it had the policy's, or at step 0.
      kept_kind: the run's `teacher.kind`.
      checkpoint: steps done when `policy` was written; 0 where it is `initial`.
    """

    policy: Params
    initial: Params
    kept: Params | None
    kept_kind: str
    checkpoint: int

    def teacher(self, kind: str) -> tuple[Params, str]:
        """The teacher's parameters of a kind, and in words which they are."""
        if kind == "policy":
            return self.policy, f"the policy's, of step {self.checkpoint}"
        if kind == self.kept_kind and self.kept is not None:
            return self.kept, f"the run's own {kind}, of step {self.checkpoint}"
        exact = kind == "initial" or self.checkpoint == 0  # every teacher begins as those of step 0
        return self.initial, "those of step 0" + ("" if exact else f", in place of {kind}")


def checkpoint_before(workdir: Path, step: int) -> int | None:
    """The last complete checkpoint written after at most `step` steps."""
    names = (path.parent.name for path in (workdir / "checkpoints").glob("*/state"))
    return max((int(name) for name in names if name.isdecimal() and int(name) <= step), default=None)


def load(run: Run, workdir: Path, step: int) -> Parameters:
    """The parameters for rollouts that were sampled after `step` training steps. The folder is only read.

    Raises:
      FileNotFoundError: the run's warm-up is not in its workdir.
    """
    if run.config.warmup.documents and not (workdir / "warmup").exists():
        raise FileNotFoundError(f"{workdir / 'warmup'}: no such folder, and the run began from a warm-up")
    initial = initial_params(run, workdir, Clock())
    found = checkpoint_before(workdir, step)
    if found is None:
        return Parameters(initial, initial, None, run.teacher.kind, 0)
    parts, kept = (run.policy, run.optimizer), run.teacher.kept
    abstract, where = abstract_state(*parts, teacher=kept), state_shardings(*parts, run.mesh, teacher=kept)
    state = load_params(workdir / "checkpoints" / str(found) / "state", abstract, where)
    base = lora.split(initial)[0]  # of a policy with adapters; the checkpoint has those alone
    theirs = None if kept is None else lora.join(None if run.teacher.kind == "external" else base, state.teacher)
    return Parameters(lora.join(base, state.params), initial, theirs, run.teacher.kind, found)
