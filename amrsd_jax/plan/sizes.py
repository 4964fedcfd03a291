"""Computes the bytes of each phase of a run on one device, by item."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from amrsd_jax import credit, experiment
from amrsd_jax.config import Config
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.learning.step import accumulates
from amrsd_jax.plan import parts
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Policy, lora
from amrsd_jax.reflection.prompts import task_templates
from amrsd_jax.reflection.sources import samplers_of
from amrsd_jax.sampling import SamplerConfig
from amrsd_jax.scoring.teachers import Blend, Teacher
from amrsd_jax.tasks import registry

_LOGITS = 3  # float32 arrays [tokens, V] alive at once in a chunk's backward pass: logits, softmax, a gradient


@dataclasses.dataclass(frozen=True)
class Planned:
    """The parts of a run that determine its memory.

    Attributes:
      config: the validated config.
      policy: the model that is trained.
      external: the model of `config.external`, None without one.
      mesh: mesh over which arrays are split.
      optimizer: the policy's optimizer.
      samplers: shapes of the samplers.
    """

    config: Config
    policy: Policy
    external: Policy | None
    mesh: Mesh
    optimizer: optax.GradientTransformation
    samplers: dict[str, SamplerConfig]

    @property
    def teacher(self) -> Teacher:
        """The teacher, of which `stored` has the parameters that the run keeps for it."""
        return Teacher(self.config.teacher, self.policy, self.external)

    @property
    def critic(self) -> Policy:
        """The model that writes the critic's texts."""
        return self.external or self.policy

    @property
    def scores_gap(self) -> bool:
        """Whether the teacher scores the responses before the update."""
        return self.config.credit.context != "none" and credit.get(self.config.credit.rule).reads_gap

    @property
    def distils(self) -> bool:
        """Whether the loss has a distillation term, which needs the teacher's forward pass in the update."""
        return bool(credit.get(self.config.credit.rule).distill)

    @property
    def streams(self) -> dict[str, SamplerConfig]:
        """The samplers that the run uses, by purpose."""
        used = {"rollout"} | samplers_of(self.config.credit.context)
        return {name: sampler for name, sampler in self.samplers.items() if name in used}

    def prompts(self, stream: str) -> list[int]:
        """Returns the longest prompts that a sampler admits: of its own, and of the reflections that begin beside responses."""
        sampler, reflection = self.samplers[stream], self.config.reflection
        room = min(reflection.prompt_length, sampler.length - reflection.tokens)
        early = (
            stream == "rollout" and experiment.reflects_early(self.config) and reflection.tokens <= sampler.new_tokens
        )
        return [sampler.prompt_length, *([room] if early and room > 0 else [])]

    @property
    def response_length(self) -> int:
        """T, the longest response."""
        return self.config.rollout.response_length

    @property
    def micro_batch(self) -> int:
        """Rows of a micro-batch over all devices."""
        config = self.config
        return config.rows // config.learning.parts

    @property
    def shared_prompts(self) -> int:
        """How many prompts a micro-batch has at most, padded as `micro_batches` does, if responses share them; otherwise 0."""
        config = self.config
        if not config.learning.share_prompts or row_devices(self.mesh) > 1:
            return 0
        whole, cut = divmod(config.rows // config.learning.minibatches, config.rollout.group)  # groups of an update
        return 1 << (min(self.micro_batch, config.rollout.prompts, whole + 2 * (cut > 0)) - 1).bit_length()


def planned(config: Config, workdir: Path | None = None, devices: Sequence[jax.Device] | None = None) -> Planned:
    """Makes the parts of a validated config, without reading weights, rows or a tokenizer that the config names.

    Args:
      workdir: of the run, whose tokenizer is taken if it has one; None before there is a run.
      devices: those of the mesh, which need not exist; None for all visible devices.

    Raises:
      ValueError: the parts do not fit together.
    """
    mesh = meshes.make_mesh(**config.mesh.model_dump(), devices=devices)
    external = None
    if config.external.workdir:
        other = Path(config.external.workdir)
        external = _policy(experiment.policy_config(other), other, mesh)
    samplers = experiment.make_samplers(config, mesh, None)
    optimizer = make_optimizer(config.optimizer, make_schedule(config.optimizer, config.updates))
    return Planned(config, _policy(config, workdir, mesh), external, mesh, optimizer, samplers)


def _policy(config: Config, workdir: Path | None, mesh: Mesh) -> Policy:
    """Makes a config's policy. An embedded tokenizer is made as well, since it determines the vocabulary."""
    if config.tokenizer:
        return experiment.make_policy(config, None, mesh)
    task = registry.make(config.task.name, dict(config.task.args), config.seed)
    texts = task_templates(config.task, config.reflection.templates)
    return experiment.make_policy(config, experiment.make_tokenizer(config, texts, task, workdir), mesh)


def always(run: Planned) -> dict[str, int]:
    """Returns the bytes that are held during the whole run, by item."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.teacher.stored)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.teacher.stored)
    whole, critic = run.policy.abstract_params(), run.critic.abstract_params()
    critic = critic if run.external else lora.trainable(critic)  # the frozen base model is shared
    return {
        "parameters": parts.bytes_of(whole, meshes.shardings(whole, run.mesh)),
        "optimiser": parts.bytes_of(state.opt_state, where.opt_state),
        "teacher": parts.bytes_of(state.teacher, where.teacher),
        # With adapters only these are copied; the frozen base model is shared.
        "reference policy": parts.bytes_of(state.params, where.params) if run.config.loss.kl else 0,
        "critic": parts.bytes_of(critic, meshes.shardings(critic, run.mesh)) if "critic" in run.streams else 0,
        "critic's decoding weights": parts.decoding_weights(run.critic, run.mesh) if "critic" in run.streams else 0,
    }


def phases(run: Planned) -> dict[str, dict[str, int]]:
    """Returns the bytes that each phase adds while it runs, by phase and item.

    Logits and the temporaries of a layer do not exist at the same time, so logits count only as far as they exceed those.
    """
    config, mesh = run.config, run.mesh
    weights = parts.decoding_weights(run.policy, mesh)
    samplers = {name: (run.critic if name == "critic" else run.policy, own) for name, own in run.streams.items()}
    prefills = [
        {
            "keys and values": parts.cache(policy, sampler),
            "prefill": max(parts.prefill(policy, sampler, longest) for longest in run.prompts(name)),
            # Few tokens have logits, so that the head stays as it is.
            "gathered weights": parts.gathered_layers(policy),
        }
        for name, (policy, sampler) in samplers.items()
    ]
    scorers = [run.policy, run.teacher.model] if run.scores_gap else [run.policy]
    return _warm_up(run) | {
        "prepare": {
            "decoding weights": weights,
            "weights in the making": parts.head(run.policy) if mesh.shape["fsdp"] > 1 else 0,
        },
        "prefill": _largest(prefills) | {"decoding weights": weights},
        "decode": {
            "keys and values": max(parts.cache(*one) for one in samplers.values()),
            "decoding weights": weights,
            "logits": max(
                3 * parts.device_rows(sampler.slots, mesh) * parts.row_of_logits(policy)
                for policy, sampler in samplers.values()
            ),
        },
        "score": _largest([_scoring(run, policies_of(model)) for model in scorers]),
        "update": _learning(
            run, run.policy, run.micro_batch, config.rollout.prompt_length + run.response_length, run.response_length,
            teacher=policies_of(run.teacher.model) if run.distils else [],
            own=[run.teacher.stored] if run.distils and run.teacher.stored else [],
            teacher_length=config.reflection.context_length + run.response_length,
            copies=2 if accumulates(config.loss, config.learning) else 1,  # the sum, and those of a micro-batch
            shared=run.shared_prompts,
        ),
    }  # fmt: skip


def _largest(items: Sequence[dict[str, int]]) -> dict[str, int]:
    return max(items, key=lambda sizes: sum(sizes.values()))


def saved(run: Planned) -> int:
    """Returns the bytes of a device's part of a checkpoint, which has no frozen parameters."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.teacher.stored).replace(frozen=None)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.teacher.stored)
    return sum(
        parts.bytes_of(getattr(state, name), getattr(where, name)) for name in ("params", "opt_state", "teacher")
    )


def _warm_up(run: Planned) -> dict[str, dict[str, int]]:
    """Returns the phase of the reflection warm-up, which with rehearsal runs the policy as it was before too; {} without one."""
    warmup, width = run.config.reflection.warmup, run.config.warmup_row_length
    if not warmup.attempts:
        return {}
    policy = run.policy
    if policy.attention == "cudnn":  # which leaves rows of several documents to `xla`
        policy = dataclasses.replace(policy, attention="xla")
    # What is trained has the size of its gradient, and is kept as it was.
    copies, before = (2, [policy]) if warmup.rehearsal else (1, [])
    return {
        "warm up": _learning(
            run, policy, warmup.rows, width, width, teacher=before, own=before, teacher_length=width, copies=copies
        )
    }


def policies_of(model: Policy | Blend) -> list[Policy]:
    """Returns the policies that a model runs for a row."""
    return [model.first, model.second] if isinstance(model, Blend) else [model]


def _scoring(run: Planned, policies: Sequence[Policy]) -> dict[str, int]:
    """Returns the bytes that scoring adds, by item, under a model that runs these policies."""
    config = run.config
    prompt, rows = max(config.rollout.prompt_length, config.reflection.context_length), config.scoring.rows
    forward = max(
        parts.forward(policy, parts.device_rows(rows, run.mesh), prompt + run.response_length) for policy in policies
    )
    logits = _chunk(run, rows, run.response_length) * sum(map(parts.row_of_logits, policies))
    return {"gathered weights": parts.gathered(policies), "activations": forward, "logits": max(0, logits - forward)}


def _learning(
    run: Planned, policy: Policy, rows: int, length: int, scored: int, *,
    teacher: Sequence[Policy], own: Sequence[Policy], teacher_length: int, copies: int = 1, shared: int = 0,
) -> dict[str, int]:  # fmt: skip
    """Returns the bytes that an update adds, by item.

    Args:
      policy: the one that is trained.
      rows: rows whose gradient is computed at one time.
      length, scored: tokens of a row, and those that have logits.
      teacher, teacher_length: policies that are run beside it without a gradient, and the tokens of their rows.
      own: those of them whose parameters are not the policy's.
      copies: gradients that exist at one time.
      shared: prompts that are run once for all their responses, of `scored` tokens; 0 if every row has its own.
    """
    trained, per_device = lora.trainable(policy.abstract_params()), parts.device_rows(rows, run.mesh)
    kept, inner = parts.activations(policy, per_device, length)
    if shared:
        of_prompts = parts.activations(policy, shared, length - scored)
        of_responses = parts.activations(policy, per_device, scored, before=length - scored)
        kept, inner = map(sum, zip(of_prompts, of_responses, strict=True))
    gradient = parts.bytes_of(trained, meshes.shardings(trained, run.mesh))
    logits = _chunk(run, rows, scored) * _LOGITS * sum(map(parts.row_of_logits, [policy, *teacher]))
    beside = max((parts.forward(other, per_device, teacher_length) for other in teacher), default=0)
    return {
        "gathered weights": parts.gathered([policy, *own]),
        "gradients": gradient * copies + parts.head_gradient(policy),
        "activations": kept + inner + beside,
        "logits": max(0, logits - inner),
    }


def _chunk(run: Planned, rows: int, scored: int) -> int:
    """Returns the number of tokens on one device whose logits exist at a time, in a chunk of `over_chunks`."""
    rows = parts.device_rows(rows, run.mesh)
    return rows * max(1, min(scored, run.config.scoring.chunk // rows))
