"""Makes the state that a run starts with: from imported, random or warmed-up parameters, or from its newest checkpoint."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from amrsd_jax import interrupt, processes, reflection_warmup, rng
from amrsd_jax.config import Config
from amrsd_jax.experiment import Experiment, policy_config, sampler_params
from amrsd_jax.files import atomic_write
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.state import abstract_state, add_adapters, init_params, init_state, state_shardings
from amrsd_jax.learning.warmup import warm_up
from amrsd_jax.policy import Params, Policy, huggingface, lora
from amrsd_jax.records import TrainState
from amrsd_jax.runtime import monitor
from amrsd_jax.runtime.checkpoints import Checkpoints, find_step, load_params, load_policy, save_params
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.console import note, track
from amrsd_jax.sampling import SamplerParams
from amrsd_jax.scoring.teachers import copy
from amrsd_jax.sections import ConfigError


@dataclasses.dataclass
class Progress:
    """The host's state of a run, checkpointed beside the train state.

    Attributes:
      step: training steps done.
      position: index of the next training problem.
      skipped: steps in a row with a skipped update.
      memory: memory of the credit rule.
      tracks: state of the collapse monitor.
      best: step of the checkpoint with the best accuracy, and that accuracy; of equal ones the last. None before the first.
      good: step of the newest checkpoint saved while no signal that the monitor acts on was beyond its threshold.
      rollbacks: steps after which the run was rolled back to such a checkpoint.
      stopped: signal, step, value and threshold, if the monitor ended the run.
      tokens: response tokens sampled.
      seconds, wall_seconds: seconds by phase, and in all.
    """

    step: int = 0
    position: int = 0
    skipped: int = 0
    memory: list[float] = dataclasses.field(default_factory=list)
    tracks: monitor.Tracks = dataclasses.field(default_factory=dict)
    best: list[int | float] | None = None
    good: int | None = None
    rollbacks: list[int] = dataclasses.field(default_factory=list)
    stopped: dict[str, Any] | None = None
    tokens: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    wall_seconds: float = 0.0

    def compare(self, evaluation: Mapping[str, Any] | None) -> None:
        """Records this step as the best one if it was evaluated and no earlier accuracy is higher.

        The accuracy is that on the validation split, where the task has one, else on the test split.
        """
        if evaluation is not None:
            accuracy = evaluation.get("eval/validation/sampled", evaluation["eval/sampled"])
            if self.best is None or accuracy >= self.best[1]:
                self.best = [self.step, accuracy]


@dataclasses.dataclass(frozen=True)
class FixedPolicies:
    """Parameters that never change during a run: the KL penalty's reference, and the critic's; None where not needed."""

    reference: Params | None
    critic: SamplerParams | None


def start_or_resume(
    experiment: Experiment, workdir: Path, checkpoints: Checkpoints, clock: Clock
) -> tuple[TrainState, FixedPolicies, Progress]:
    """Returns the newest whole checkpoint's state or a fresh one, the fixed policies, and the progress.

    Raises:
      ConfigError: weights, warm-up, checkpoint or external run do not fit the config.
      Interrupted: a signal was received in the warm-up.
    """
    config, policy, teacher = experiment.config, experiment.policy, experiment.teacher
    step, initial = checkpoints.latest(), None
    external = None
    if experiment.external and (step is None or experiment.needs_critic):
        external = external_params(experiment, workdir)  # may raise, so before a warm-up
    if step is None or config.loss.kl or experiment.needs_critic:
        initial = initial_params(experiment, workdir, clock)
    fixed = FixedPolicies(
        (initial if step is not None else copy_trainable(initial)) if config.loss.kl else None,
        critic_params(experiment, initial, external) if experiment.needs_critic else None,
    )
    if step is not None:
        note(f"resuming at step {step}")
        where = state_shardings(policy, experiment.optimizer, experiment.mesh, teacher=teacher.stored)
        abstract = abstract_state(policy, experiment.optimizer, teacher=teacher.stored)
        try:
            state, progress = checkpoints.restore(step, abstract, where)
            progress = Progress(**progress)
        except (OSError, TypeError) as error:  # its checksums were right: what it holds is not this state
            raise ConfigError(
                f"{error}; expected another workdir if an earlier version of amrsd_jax wrote it"
            ) from error
        frozen = None
        if policy.architecture.lora:
            frozen, _ = lora.split(adapted_params(experiment, workdir, clock) if initial is None else initial)
        return state.replace(frozen=frozen), fixed, progress
    stored = None
    if teacher.stored:
        if teacher.config.kind != "external":
            stored = copy_trainable(initial)
        else:  # a critic keeps its parameters; the state's are donated
            stored = copy(external) if experiment.needs_critic else external
    state = init_state(policy, experiment.optimizer, initial, experiment.mesh, teacher=stored)
    return state, fixed, Progress()


def copy_trainable(params: Params) -> Params:
    """Returns the parameters with copies of the trainable ones, which updates donate; frozen ones are shared."""
    frozen, trainable = lora.split(params)
    return lora.combine(frozen, copy(trainable))


def critic_params(experiment: Experiment, initial: Params, external: Params | None) -> SamplerParams:
    """Returns the frozen critic as the sampler reads it: the external policy, or this run's at step 0."""
    if experiment.external:
        return sampler_params(experiment.external.policy, external, experiment.mesh)
    return experiment.sampler_params(copy_trainable(initial))


def external_params(experiment: Experiment, workdir: Path) -> Params:
    """Returns the newest parameters of the external run as of this run's start; the workdir keeps a copy of them.

    Raises:
      ConfigError: it has no checkpoint.
      OSError: the copy is damaged or cannot be read.
    """
    external, folder = experiment.external, workdir / "external"
    if processes.broadcast(folder.exists()):
        abstract = external.policy.abstract_params()
        try:
            return load_params(folder, abstract, meshes.shardings(abstract, experiment.mesh))
        except ValueError as error:
            raise OSError(f"{error}; restore that folder, or use another --workdir") from error
    try:
        step = find_step(external.workdir)
    except FileNotFoundError:
        raise ConfigError(f"external.workdir = {str(external.workdir)!r}: the run there has no checkpoint") from None
    params = trained_params(external.workdir, step, external.policy, experiment.mesh)
    save_params(folder, params)
    return params


def saved_params(workdir: Path, step: int, policy: Policy, mesh: Mesh) -> Params:
    """Returns all parameters of a run's checkpoint, on any mesh; `policy` has the run's architecture.

    A checkpoint with adapters lacks the frozen parameters; they are those at step 0.

    Raises:
      FileNotFoundError: they are those of a warm-up, which the workdir no longer has.
    """
    trained = trained_params(workdir, step, policy, mesh)
    if policy.architecture.lora is None:
        return trained
    config = policy_config(workdir)
    base = found_params(config, workdir, policy, mesh, Clock())
    if base is None:
        raise FileNotFoundError(f"{workdir / 'warmup'}: no such folder, but the run began from a warm-up")
    adapted = add_adapters(policy, base, rng.key(config.seed, "adapters"), mesh)
    return lora.combine(lora.split(adapted)[0], trained)


def trained_params(workdir: Path, step: int, policy: Policy, mesh: Mesh) -> Params:
    """Returns the trainable parameters of a run's checkpoint, all or the adapters; nothing else of it is read."""
    abstract = lora.trainable(policy.abstract_params())
    return load_policy(workdir / "checkpoints" / str(step) / "state", abstract, meshes.shardings(abstract, mesh))


def initial_params(experiment: Experiment, workdir: Path, clock: Clock) -> Params:
    """Returns the parameters at step 0, after the reflection warm-up if there is one, which saves what it trains in the workdir.

    Raises:
      ConfigError: see `base_params`; the reflection warm-up has too few documents, or is damaged.
      Interrupted: a signal was received.
    """
    policy, folder = experiment.policy, workdir / "reflection_warmup"
    if not experiment.config.reflection.warmup.attempts:
        return adapted_params(experiment, workdir, clock)
    if processes.broadcast(folder.exists()):
        frozen = lora.split(adapted_params(experiment, workdir, clock))[0] if policy.architecture.lora else None
        return lora.combine(frozen, load_warmup(folder, lora.trainable(policy.abstract_params()), experiment.mesh))
    params = adapted_params(experiment, workdir, clock)
    note(f"reflection warm-up on {experiment.config.reflection.warmup.attempts} attempts")
    with interrupt.Interrupt():
        with clock.phase("warmup"):
            params, record = reflection_warmup.warm_up(
                experiment, params, progress=lambda batches: _until_interrupted(batches, "reflection warm-up, updates")
            )
        note(record.line())
        _write_json(workdir / "reflection_warmup.json", dataclasses.asdict(record))
        save_params(folder, lora.trainable(params))
        interrupt.check()
    return params


def adapted_params(experiment: Experiment, workdir: Path, clock: Clock) -> Params:
    """Returns the parameters before the reflection warm-up, with fresh adapters where the config asks for them."""
    base = base_params(experiment, workdir, clock)
    if experiment.policy.architecture.lora is None:
        return base
    key = rng.key(experiment.config.seed, "adapters")
    return add_adapters(experiment.policy, base, key, experiment.mesh)


def base_params(experiment: Experiment, workdir: Path, clock: Clock) -> Params:
    """Returns the parameters without adapters: imported, random, or those of the warm-up, which are saved in the workdir.

    Raises:
      ConfigError: the weights cannot be imported, or the warm-up is damaged, or its documents do not fit its rows.
      Interrupted: a signal was received in the warm-up.
    """
    config, policy, folder = experiment.config, experiment.policy.base, workdir / "warmup"
    found = found_params(config, workdir, experiment.policy, experiment.mesh, clock)
    if found is not None:
        return found
    note(f"warm-up on {config.warmup.documents} documents")
    with interrupt.Interrupt():
        with clock.phase("warmup"):
            params, losses = warm_up(
                policy, experiment.task, experiment.templates[""], experiment.tokenizer, experiment.mesh, config.warmup,
                seed=config.seed, chunk=config.scoring.chunk,
                progress=lambda batches: _until_interrupted(batches, "warm-up, updates"),
                **experiment.context_settings.chat_template,
            )  # fmt: skip
        note(f"warm-up: {len(losses)} updates, loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f} nats per token")
        save_params(folder, params)
        interrupt.check()
    return params


def found_params(config: Config, workdir: Path, policy: Policy, mesh: Mesh, clock: Clock) -> Params | None:
    """Returns the parameters without adapters, imported, random or those of a warm-up in the workdir; None if it is still to do.

    Raises:
      ConfigError: the weights cannot be imported, or the warm-up is damaged.
    """
    if huggingface.is_checkpoint(config.model):
        note(f"importing weights from {config.model}")
        where = meshes.shardings(lora.without(policy.abstract_params()), mesh)
        try:
            with clock.phase("import"):
                return huggingface.load_params(huggingface.checkpoint_place(config.model, weights=True), policy, where)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if not config.warmup.documents:
        return init_params(policy.base, rng.key(config.seed, "init"), mesh)
    if processes.broadcast((workdir / "warmup").exists()):
        return load_warmup(workdir / "warmup", policy.base.abstract_params(), mesh)
    return None


def load_warmup(folder: Path, abstract: Params, mesh: Mesh) -> Params:
    """Returns the parameters that a warm-up saved.

    Raises:
      ConfigError: they are damaged.
      OSError: they cannot be read now.
    """
    try:
        return load_params(folder, abstract, meshes.shardings(abstract, mesh))
    except ValueError as error:
        raise ConfigError(f"{error}; delete that folder to have the warm-up made again") from error


@processes.only_first
def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=2) + "\n")


def _until_interrupted(batches: Iterable[Any], name: str) -> Iterator[Any]:
    for batch in track(batches, name):
        interrupt.check()
        yield batch
