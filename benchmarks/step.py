"""Makes the case of whole training steps by several methods on the same rollouts: what a method adds to GRPO, by phase.

Parameters, prompts and noise are those of the steps that a run would take next, and the learning rate is 0, so every turn of
every arm samples the same responses, which `measure` checks by their number of tokens.
"""

import copy
from pathlib import Path

import numpy as np

from amrsd_jax.compare.methods import configure
from amrsd_jax.experiment import Experiment, make_experiment
from amrsd_jax.learning.state import init_state, policy_params
from amrsd_jax.learning.step import make_train_step
from amrsd_jax.policy import Params
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.scoring import teachers
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import FixedPolicies, Progress, start_or_resume
from amrsd_jax.train import training_step
from amrsd_jax.validate import validate
from benchmarks.floors import Work
from benchmarks.measure import Arm, Case


def training_steps(workdir: Path, methods: list[str], count: int) -> Case:
    """Returns a case with one arm per method, named as in `amrsd_jax.compare`; a turn takes `count` steps.

    Raises:
      FileNotFoundError: the folder holds no run.
      ConfigError: a method is unknown.
    """
    config = read_config(workdir)
    config.optimizer.learning_rate = 0.0
    experiment = make_experiment(validate(config), workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=None)
    state, fixed, progress = start_or_resume(experiment, workdir, checkpoints, Clock())
    checkpoints.close()
    params = policy_params(state)
    if experiment.external:  # methods are applied without it, so that its critic would be read as this run's
        fixed = FixedPolicies(fixed.reference, None)
    arms = tuple(_arm(name, configure(experiment, name), params, fixed, progress, count) for name in methods)
    sizes = {"run": str(workdir), "steps": count}
    return Case("step", "training step", sizes, lambda _: Work(np.zeros(1), np.zeros(1)), arms)


def _arm(name: str, exp: Experiment, params: Params, fixed: FixedPolicies, progress: Progress, count: int) -> Arm:
    if exp.needs_critic and fixed.critic is None:
        raise ConfigError(
            f"methods: {name} reads the texts of a critic, expected a run whose critic is its own policy of step 0"
        )
    teacher = teachers.copy(params) if exp.teacher.stored else None
    state = init_state(exp.policy, exp.optimizer, teachers.copy(params), exp.mesh, teacher=teacher)
    update = make_train_step(
        exp.policy, exp.optimizer, exp.schedule, exp.objective, exp.config.learning, exp.mesh, teacher=exp.teacher
    )
    clock = Clock()

    def turn() -> int:
        nonlocal state  # donated
        clock.lap()
        tokens, now = 0, copy.deepcopy(progress)
        for _ in range(count):
            state, record, _ = training_step(exp, update, state, fixed, now, clock)
            tokens += int(record.rollouts.mask.sum())
        return tokens

    slots = exp.config.rollout.slots
    return Arm(name, turn, phases=lambda: dict(clock.step), timeline=lambda: clock.timeline(slots))
