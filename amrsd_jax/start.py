"""What a run begins with: parameters from a model, a warm-up or another run, or all of it from its newest checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from amrsd_jax import processes, rng
from amrsd_jax.build import Run, build
from amrsd_jax.checks import ConfigError
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.step import abstract_state, adapt, init_params, init_state, state_shardings
from amrsd_jax.learning.warmup import warm_up
from amrsd_jax.policy import Params, Policy, huggingface, lora
from amrsd_jax.records import TrainState
from amrsd_jax.runtime import monitor
from amrsd_jax.runtime.checkpoints import Checkpoints, load_params, load_policy, save_params
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.summary import bar, note
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.sampling import Weights
from amrsd_jax.scoring.teachers import copy


@dataclasses.dataclass
class Progress:
    """What the host must remember besides the state.

    Attributes:
      step: training steps done.
      position: index of the next training problem.
      skipped: refused updates in a row.
      memory: what the rule remembers.
      tracks: what the collapse monitor remembers.
      good: step of the newest checkpoint saved while nothing that it acts on was beyond its threshold.
      rollbacks: steps after which the run went back to it.
      stopped: signal, step, value and threshold, if the monitor ended the run.
      seconds, wall_seconds: by phase, and in all.
    """

    step: int = 0
    position: int = 0
    skipped: int = 0
    memory: list[float] = dataclasses.field(default_factory=list)
    tracks: monitor.Tracks = dataclasses.field(default_factory=dict)
    good: int | None = None
    rollbacks: list[int] = dataclasses.field(default_factory=list)
    stopped: dict[str, Any] | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    wall_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a run reads and never changes: parameters of the reference policy, and what the sampler reads of the critic."""

    reference: Params | None
    critic: Weights | None


def start_or_resume(
    run: Run, workdir: Path, checkpoints: Checkpoints, clock: Clock
) -> tuple[TrainState, Frozen, Progress]:
    """The newest complete checkpoint's state or a fresh one; frozen parameters where the config asks for any; progress."""
    step, initial, external = checkpoints.latest(), None, None
    if step is None or run.config.loss.kl or run.critic or run.policy.architecture.lora:
        initial = initial_params(run, workdir, clock)
    if run.external:
        external = external_params(run, workdir)
    frozen = Frozen(
        copy(initial) if run.config.loss.kl else None,
        run.critic.sampling_weights(external if run.external else copy(initial)) if run.critic else None,
    )
    if step is not None:
        note(f"resuming at step {step}")
        state, progress = restore(run, checkpoints, step)
        if run.policy.architecture.lora:
            state = state.replace(params=lora.join(lora.split(initial)[0], state.params))
        return state, frozen, Progress(**progress)
    teacher = copy(external if run.teacher.kind == "external" else initial) if run.teacher.kept else None
    return init_state(run.policy, run.optimizer, initial, run.mesh, teacher=teacher), frozen, Progress()


def restore(run: Run, checkpoints: Checkpoints, step: int) -> tuple[TrainState, dict]:
    """State and progress of a checkpoint; of a policy with adapters those alone, without what they are beside."""
    parts, kept = (run.policy, run.optimizer), run.teacher.kept
    abstract, where = abstract_state(*parts, teacher=kept), state_shardings(*parts, run.mesh, teacher=kept)
    return checkpoints.restore(step, abstract, where)


def external_params(run: Run, workdir: Path) -> Params:
    """The newest parameters of the external run, copied into the workdir once: it may go on, or away.

    Raises:
      ConfigError: it has no checkpoint.
    """
    external, folder = run.external, workdir / "external"
    if processes.agree(folder.exists()):
        abstract = external.policy.abstract_params()
        return load_params(folder, abstract, meshes.shardings(abstract, run.mesh))
    theirs = Checkpoints(Path(run.config.external.workdir) / "checkpoints", keep=None)
    step = theirs.latest()
    if step is None:
        raise ConfigError(f"external.workdir = {run.config.external.workdir!r}: the run there has no checkpoint")
    params = restore(external, theirs, step)[0].params
    theirs.close()
    save_params(folder, params)
    return params


def saved_params(workdir: Path, step: int, policy: Policy, mesh: Mesh) -> Params:
    """The parameters of a run's checkpoint, on any mesh. What adapters are beside is made again as the run made it.

    Args:
      policy: of the run's architecture.
    """
    learned = learned_params(workdir, step, policy, mesh)
    if policy.architecture.lora is None:
        return learned
    config = read_config(workdir)
    config.mesh.update(mesh.shape)
    return lora.join(lora.split(initial_params(build(config, workdir), workdir, Clock()))[0], learned)


def learned_params(workdir: Path, step: int, policy: Policy, mesh: Mesh) -> Params:
    """What learned of a run's checkpoint: all parameters, or the adapters alone. Nothing else of it is read."""
    abstract = lora.learns(policy.abstract_params())
    return load_policy(workdir / "checkpoints" / str(step) / "state", abstract, meshes.shardings(abstract, mesh))


def initial_params(run: Run, workdir: Path, clock: Clock) -> Params:
    """Parameters at step 0, with fresh adapters where the config asks for them."""
    base = base_params(run, workdir, clock)
    if run.policy.architecture.lora is None:
        return base
    return adapt(run.policy, base, rng.key(run.config.seed, "adapters"), run.mesh)


def base_params(run: Run, workdir: Path, clock: Clock) -> Params:
    """Parameters without adapters: a checkpoint's, random, or after the warm-up, which is done once and kept in the workdir."""
    config, policy, folder = run.config, run.policy.base, workdir / "warmup"
    if huggingface.is_place(config.model):
        note(f"weights from {config.model}")
        where = meshes.shardings(lora.without(run.policy.abstract_params()), run.mesh)
        try:
            with clock.phase("import"):
                return huggingface.load_params(huggingface.locate(config.model, weights=True), run.policy, where)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if not config.warmup.documents:
        return init_params(policy, rng.key(config.seed, "init"), run.mesh)
    if processes.agree(folder.exists()):
        abstract = policy.abstract_params()
        return load_params(folder, abstract, meshes.shardings(abstract, run.mesh))
    note(f"warm-up on {config.warmup.documents} documents")
    with clock.phase("warmup"):
        settings = {name: value for name, value in config.warmup.items() if name != "documents"}
        params, losses = warm_up(
            policy, run.task, run.texts, run.tokenizer, run.mesh, seed=config.seed, count=config.warmup.documents,
            chunk=config.scoring.chunk, progress=lambda batches: bar(batches, "warm-up"), **settings,
        )  # fmt: skip
    note(f"warm-up: {len(losses)} updates, loss {losses[0]:.3f} -> {np.mean(losses[-20:]):.3f} nats a token")
    save_params(folder, params)
    return params
