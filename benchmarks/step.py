"""Whole training steps by several methods on the same rollouts: what a method adds to GRPO, phase by phase.

Parameters, prompts and noise are those of the steps that a run would take next, and the learning rate is 0, so every turn of
every arm samples the same responses; which `measure` checks by their number of tokens.
"""

import copy
from pathlib import Path

import numpy as np

from amrsd_jax.build import Run, build
from amrsd_jax.compare.methods import configure
from amrsd_jax.learning.step import init_state, make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.scoring import teachers
from amrsd_jax.start import Frozen, Progress, start_or_resume
from amrsd_jax.train import training_step
from benchmarks.floors import Work
from benchmarks.measure import Arm, Case


def training_steps(workdir: Path, methods: list[str], count: int) -> Case:
    """A case of one arm a method, in the names of `amrsd_jax.compare`, each of which takes `count` steps in a turn.

    Raises:
      FileNotFoundError: the folder holds no run.
      ConfigError: a method is unknown.
    """
    config = read_config(workdir)
    config.optimizer.learning_rate = 0.0
    run = build(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=None)
    state, _, progress = start_or_resume(run, workdir, checkpoints, Clock())
    checkpoints.close()
    arms = tuple(_arm(name, configure(run, name), state.params, progress, count) for name in methods)
    return Case(
        "step", "training step", {"run": str(workdir), "steps": count}, lambda _: Work(np.zeros(1), np.zeros(1)), arms
    )


def _arm(name: str, run: Run, params: Params, progress: Progress, count: int) -> Arm:
    teacher = teachers.copy(params) if run.teacher.kept else None
    state = init_state(run.policy, run.optimizer, teachers.copy(params), run.mesh, teacher=teacher)
    update = make_train_step(run.policy, run.optimizer, run.schedule, run.objective, run.mesh, teacher=run.teacher)
    clock = Clock()

    def turn() -> int:
        nonlocal state  # donated
        clock.lap()
        tokens, now = 0, copy.deepcopy(progress)
        for _ in range(count):
            state, made, _ = training_step(run, update, state, Frozen(None, None), now, clock)
            tokens += int(made.rollouts.mask.sum())
        return tokens

    return Arm(name, turn, phases=lambda: dict(clock.step), timeline=lambda: clock.timeline(run.config.rollout.slots))
