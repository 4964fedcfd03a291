"""Loads the parameters that score loaded rollouts: those of the nearest earlier checkpoint, and the teacher's."""

import dataclasses
from pathlib import Path

from amrsd_jax.experiment import Experiment
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.policy import Params, lora
from amrsd_jax.runtime.checkpoints import load_params, newest_whole, steps_in
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.start import initial_params


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters of students and teachers.

    Attributes:
      policy: those of the nearest checkpoint that is not later than the rollouts.
      initial: those of step 0.
      teacher: those of the run's own teacher; None if it stores none, or at step 0.
      teacher_kind: the run's `teacher.kind`.
      checkpoint: steps done when `policy` was written; 0 where it is `initial`.
    """

    policy: Params
    initial: Params
    teacher: Params | None
    teacher_kind: str
    checkpoint: int

    def of_teacher(self, kind: str) -> tuple[Params, str]:
        """Returns the parameters of a kind of teacher, and a description of them."""
        if kind == "policy":
            return self.policy, f"the policy's, of step {self.checkpoint}"
        if kind == "trust_region":
            blend = f"a blend of those of step 0 and the policy's, of step {self.checkpoint}"
            return (self.initial, self.policy), blend
        if kind == self.teacher_kind and self.teacher is not None:
            return self.teacher, f"the run's own {kind}, of step {self.checkpoint}"
        exact = kind == "initial" or self.checkpoint == 0  # every teacher starts with the parameters of step 0
        return self.initial, "those of step 0" + ("" if exact else f", in place of {kind}")


def checkpoint_before(workdir: Path, step: int) -> int | None:
    """Returns the last checkpoint written after at most `step` steps, whole or not."""
    return max((saved for saved in steps_in(workdir / "checkpoints") if saved <= step), default=None)


def load(experiment: Experiment, workdir: Path, step: int) -> Parameters:
    """Returns the parameters for rollouts that were sampled after `step` training steps; no file of the run is changed.

    Raises:
      FileNotFoundError: the run's warm-up is not in its workdir.
    """
    config = experiment.config
    for folder, made in (("warmup", config.warmup.documents), ("reflection_warmup", config.reflection.warmup.attempts)):
        if made and not (workdir / folder).exists():
            raise FileNotFoundError(f"{workdir / folder}: no such folder, but the run began from a warm-up")
    initial, kind = initial_params(experiment, workdir, Clock()), experiment.teacher.config.kind
    checkpoint = newest_whole(workdir / "checkpoints", most=step)
    if checkpoint is None:
        return Parameters(initial, initial, None, kind, 0)
    parts, stored = (experiment.policy, experiment.optimizer), experiment.teacher.stored
    abstract = abstract_state(*parts, teacher=stored)
    where = state_shardings(*parts, experiment.mesh, teacher=stored)
    state = load_params(workdir / "checkpoints" / str(checkpoint) / "state", abstract, where)
    frozen = lora.split(initial)[0]  # a checkpoint of a policy with adapters holds only these
    teacher = None
    if stored is not None:
        teacher = state.teacher if kind == "external" else lora.combine(frozen, state.teacher)
    return Parameters(lora.combine(frozen, state.params), initial, teacher, kind, checkpoint)
