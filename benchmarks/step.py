"""Whole training steps by several methods on the same rollouts: what a method adds to GRPO, phase by phase.

The parameters are those of a run's newest checkpoint and the learning rate is 0, so every turn of every arm draws the same
prompts and samples the same responses; which `measure` checks by their number of tokens.
"""

import sys
from pathlib import Path

import numpy as np

from amrsd_jax.build import Run, build
from amrsd_jax.compare import parameters
from amrsd_jax.compare.methods import configure
from amrsd_jax.learning.step import init_state, make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.runtime.metrics import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.scoring.teachers import copy
from amrsd_jax.start import Frozen, Progress
from amrsd_jax.train import training_step
from benchmarks.floors import Work
from benchmarks.measure import Arm, Case


def steps(workdir: Path, methods: list[str]) -> Case:
    """A case of one arm a method, in the names of `amrsd_jax.compare`.

    Raises:
      FileNotFoundError: the folder holds no run.
      ConfigError: a method is unknown.
    """
    config = read_config(workdir)
    config.optimizer.learning_rate = 0.0
    run = build(config, workdir)
    params = parameters.load(run, workdir, sys.maxsize).policy
    arms = tuple(_arm(name, configure(run, name), params) for name in methods)
    return Case("step", "training step", {"run": str(workdir)}, lambda _: Work(np.zeros(1), np.zeros(1)), arms)


def _arm(name: str, run: Run, params: Params) -> Arm:
    teacher = copy(params) if run.teacher.kept else None
    state = init_state(run.policy, run.optimizer, copy(params), run.mesh, teacher=teacher)
    update = make_train_step(run.policy, run.optimizer, run.schedule, run.objective, run.mesh, teacher=run.teacher)
    clock = Clock()

    def step() -> int:
        nonlocal state  # donated
        clock.lap()
        state, made, _ = training_step(run, update, state, Frozen(None, None), Progress(), clock)
        return int(made.rollouts.mask.sum())

    return Arm(name, step, phases=lambda: dict(clock.step))
