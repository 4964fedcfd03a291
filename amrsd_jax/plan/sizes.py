"""Computes the bytes of a run's parts on one device: sums over shards of abstract arrays, and estimates of temporaries."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from amrsd_jax import credit, experiment
from amrsd_jax.config import Config
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.learning.step import accumulates
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Policy, lora
from amrsd_jax.policy import cache as caches
from amrsd_jax.policy.attention import BLOCK
from amrsd_jax.policy.experts import block_shape
from amrsd_jax.reflection.prompts import task_templates
from amrsd_jax.reflection.sources import WRITTEN_BY_POLICY, sources_in
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
        sources = sources_in(self.config.credit.context)
        unused = {"evaluation"}  # has the shape of "rollout"
        if WRITTEN_BY_POLICY.isdisjoint(sources):
            unused.add("reflection")
        if "critic_feedback" not in sources:
            unused.add("critic")
        return {name: sampler for name, sampler in self.samplers.items() if name not in unused}

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


def planned(config: Config, workdir: Path, devices: Sequence[jax.Device] | None = None) -> Planned:
    """Makes the parts of a validated config, without reading weights, rows or a tokenizer that the config names.

    Args:
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


def _policy(config: Config, workdir: Path, mesh: Mesh) -> Policy:
    """Makes a config's policy. An embedded tokenizer is made as well, since it determines the vocabulary."""
    if config.tokenizer:
        return experiment.make_policy(config, None, mesh)
    task = registry.make(config.task.name, dict(config.task.args), config.seed)
    texts = task_templates(config.task, config.reflection.templates)
    return experiment.make_policy(config, experiment.make_tokenizer(config, texts, task, workdir), mesh)


# ---------------------------------------------------------------- the table


def always(run: Planned) -> dict[str, int]:
    """Returns the bytes that are held during the whole run, by item."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.teacher.stored)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.teacher.stored)
    whole, critic = run.policy.abstract_params(), run.critic.abstract_params()
    critic = critic if run.external else lora.trainable(critic)  # the frozen base model is shared
    return {
        "parameters": _bytes(whole, meshes.shardings(whole, run.mesh)),
        "optimiser": _bytes(state.opt_state, where.opt_state),
        "teacher": _bytes(state.teacher, where.teacher),
        # With adapters only these are copied; the frozen base model is shared.
        "reference policy": _bytes(state.params, where.params) if run.config.loss.kl else 0,
        "critic": _bytes(critic, meshes.shardings(critic, run.mesh)) if "critic" in run.streams else 0,
        "critic's decoding weights": _decoding(run.critic, run.mesh) if "critic" in run.streams else 0,
    }


def phases(run: Planned) -> dict[str, dict[str, int]]:
    """Returns the bytes that each phase adds while it runs, by phase and item.

    Logits and the temporaries of a layer do not exist at the same time, so logits count only as far as they exceed those.
    """
    config, mesh = run.config, run.mesh
    weights = _decoding(run.policy, mesh)
    samplers = [(run.critic if name == "critic" else run.policy, sampler) for name, sampler in run.streams.items()]
    prefills = [
        {
            "keys and values": _cache(policy, sampler),
            "prefill": _prefill(policy, sampler),
            "gathered weights": _gathered_layers(policy),  # few tokens have logits, so that the head stays as it is
        }
        for policy, sampler in samplers
    ]
    scorers = [run.policy, run.teacher.model] if run.scores_gap else [run.policy]
    return _warm_up(run) | {
        "prepare": {"decoding weights": weights, "weights in the making": _head(run.policy) if mesh.shape["fsdp"] > 1 else 0},
        "prefill": _largest(prefills) | {"decoding weights": weights},
        "decode": {
            "keys and values": max(_cache(policy, sampler) for policy, sampler in samplers),
            "decoding weights": weights,
            "logits": max(3 * _rows(sampler.slots, mesh) * _row_of_logits(policy) for policy, sampler in samplers),
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


def _largest(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    return max(parts, key=lambda sizes: sum(sizes.values()))


def saved(run: Planned) -> int:
    """Returns the bytes of a device's part of a checkpoint, which has no frozen parameters."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.teacher.stored).replace(frozen=None)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.teacher.stored)
    return sum(_bytes(getattr(state, name), getattr(where, name)) for name in ("params", "opt_state", "teacher"))


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
    forward = max(_forward(policy, _rows(rows, run.mesh), prompt + run.response_length) for policy in policies)
    logits = _chunk(run, rows, run.response_length) * sum(map(_row_of_logits, policies))
    return {"gathered weights": _gathered(policies), "activations": forward, "logits": max(0, logits - forward)}


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
    trained, per_device = lora.trainable(policy.abstract_params()), _rows(rows, run.mesh)
    kept, inner = _activations(policy, per_device, length)
    if shared:
        of_prompts = _activations(policy, shared, length - scored)
        of_responses = _activations(policy, per_device, scored, before=length - scored)
        kept, inner = map(sum, zip(of_prompts, of_responses, strict=True))
    logits = _chunk(run, rows, scored) * _LOGITS * sum(map(_row_of_logits, [policy, *teacher]))
    beside = max((_forward(other, per_device, teacher_length) for other in teacher), default=0)
    return {
        "gathered weights": _gathered([policy, *own]),
        "gradients": _bytes(trained, meshes.shardings(trained, run.mesh)) * copies + _head_gradient(policy),
        "activations": kept + inner + beside,
        "logits": max(0, logits - inner),
    }


# ---------------------------------------------------------------- parts


def _bytes(tree: PyTree, shardings: PyTree) -> int:
    """Returns the bytes of one device's shards of a tree."""
    return sum(jax.tree.leaves(jax.tree.map(_shard_bytes, tree, shardings)))


def _shard_bytes(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _decoding(policy: Policy, mesh: Mesh) -> int:
    """Returns the bytes of the copy of the weights that decoding reads."""
    weights = jax.eval_shape(policy.for_decoding, policy.abstract_params())
    return _bytes(weights, experiment.decoding_shardings(policy, mesh))


def _gathered(policies: Sequence[Policy]) -> int:
    """Returns the bytes of the layers and heads that policies with parameters of their own use in one program.

    The head of a policy with adapters is frozen, and that of its copies too.
    """
    heads = set(policies) if policies[0].architecture.lora else policies
    return max(map(_gathered_layers, policies)) + sum(map(_head, heads))


def _gathered_layers(policy: Policy) -> int:
    """Returns the bytes of two layers gathered over fsdp, one in use and the next, and of all layers' shards, cast before."""
    if policy.mesh.shape["fsdp"] == 1:
        return 0
    stored = {"layers": policy.abstract_params()["layers"]}
    cast = jax.eval_shape(policy.cast_params, stored)
    gathered = _bytes(cast, meshes.shardings(cast, policy.mesh, over=("tensor",)))
    own = jax.tree.map(_shard_bytes, cast, meshes.shardings(cast, policy.mesh))
    changed = jax.tree.map(lambda size, old, new: size * (old.dtype != new.dtype), own, stored, cast)
    return 2 * gathered // policy.architecture.layers + sum(jax.tree.leaves(changed))


def _head(policy: Policy) -> int:
    """Returns the bytes of the output projection as a pass uses it: cast, and gathered over fsdp."""
    c = policy.architecture
    if policy.mesh.shape["fsdp"] == 1 and c.dtype == "float32":
        return 0
    return c.width * c.vocab_size * jnp.dtype(c.dtype).itemsize // policy.mesh.shape["tensor"]


def _head_gradient(policy: Policy) -> int:
    """Returns the bytes of the output projection's gradient before it is summed over fsdp, in float32."""
    c = policy.architecture
    if policy.mesh.shape["fsdp"] == 1 or c.lora:
        return 0
    return 4 * c.width * c.vocab_size // policy.mesh.shape["tensor"]


def _rows(rows: int, mesh: Mesh) -> int:
    """Returns the number of rows on one device."""
    return -(-rows // row_devices(mesh))


def _cache(policy: Policy, sampler: SamplerConfig) -> int:
    """Returns the bytes of the keys and values of one device's slots."""
    c, layout = policy.architecture, policy.cache_layout
    length = caches.round_up(sampler.length, layout)
    token = jax.ShapeDtypeStruct((sampler.slots, length, c.kv_heads, c.head_dim), jnp.dtype(c.dtype))
    layer = jax.eval_shape(layout.lay_out, token, token)
    return c.layers * _bytes([layer], caches.shardings([layer], sampler.sharding))


def _prefill(policy: Policy, sampler: SamplerConfig) -> int:
    """Returns the bytes of an admission: a forward pass, the prompts' keys and values, and a layer's of all devices' prompts."""
    c, rows = policy.architecture, -(-sampler.admit // sampler.shards)
    layer = 2 * c.kv_heads * c.head_dim * jnp.dtype(c.dtype).itemsize * sampler.prompt_length
    everywhere = layer * rows * sampler.shards if sampler.shards > 1 else 0
    return _forward(policy, rows, sampler.prompt_length) + rows * c.layers * layer + everywhere


def _chunk(run: Planned, rows: int, scored: int) -> int:
    """Returns the number of tokens of one device whose logits exist at a time, in a chunk of `over_chunks`."""
    rows = _rows(rows, run.mesh)
    return rows * max(1, min(scored, run.config.scoring.chunk // rows))


def _activations(policy: Policy, rows: int, length: int, before: int = 0) -> tuple[int, int]:
    """Returns the bytes kept for the backward pass of some rows, and the bytes that one layer adds while it is recomputed.

    Args:
      before: tokens of a shared prompt that a row follows. Its scores are then not computed in blocks, and are kept as all else.
    """
    per_layer, outside = _kept(policy, length)
    scores = _scores(policy, length, before)
    if before and policy.remat == "none":
        per_layer += scores // 3
    recomputed = 0 if policy.remat == "none" else _kept(dataclasses.replace(policy, remat="none"), length)[0]
    inner = rows * (recomputed + scores) + 2 * _copied_experts(policy, rows * length)  # and gradients
    return rows * (policy.architecture.layers * per_layer + outside), inner


def _forward(policy: Policy, rows: int, length: int) -> int:
    """Returns the peak bytes of a forward pass: residuals, and a layer's attention scores or activations of gated blocks."""
    c = policy.architecture
    token = jnp.dtype(c.dtype).itemsize * length  # bytes of one value at every position
    blocks = max(1, 2 * c.experts_per_token)  # half of the rows of the experts' blocks may be empty
    inner = max(_scores(policy, length), token * blocks * (2 * c.ffn // _ways(policy) + 2 * c.width))
    return rows * (inner + 2 * token * c.width) + _copied_experts(policy, rows * length)


def _copied_experts(policy: Policy, tokens: int) -> int:
    """Returns the bytes of two kernels of the experts, copied for each block of tokens."""
    c = policy.architecture
    if not c.experts:
        return 0
    blocks = block_shape(tokens * c.experts_per_token, c.experts)[1]
    return 2 * blocks * c.width * c.ffn // _ways(policy) * jnp.dtype(c.dtype).itemsize


def _scores(policy: Policy, length: int, before: int = 0) -> int:
    """Returns the bytes of a row's attention scores that exist at a time: three float32 arrays in the compiled program.

    After a shared prompt of `before` tokens these are all scores.
    """
    queries = length if before else min(length, BLOCK) * (policy.attention == "xla")
    return 3 * 4 * (policy.architecture.heads // _ways(policy)) * queries * (before + length)


def _row_of_logits(policy: Policy) -> int:
    """Returns the bytes of one token's logits, in float32."""
    return 4 * policy.architecture.vocab_size // _ways(policy)


def _ways(policy: Policy) -> int:
    """Returns the number of devices that heads, SwiGLU activations and the vocabulary are split over."""
    return 1 if policy.mesh is None else policy.mesh.shape["tensor"]


@functools.lru_cache
def _kept(policy: Policy, length: int) -> tuple[int, int]:
    """Returns the bytes kept for the backward pass of one row: per layer, and outside of the layers.

    They are differences between the residuals of `forward` with one and two rows and layers, so they contain no weights. What is
    not as wide as the model is split over `tensor`.
    """

    def part(array: jax.ShapeDtypeStruct) -> int:
        whole = array.shape[-1:] == (policy.architecture.width,)
        return math.prod(array.shape) * array.dtype.itemsize // (1 if whole else _ways(policy))

    def residuals(rows: int, layers: int) -> int:
        architecture = dataclasses.replace(policy.architecture, layers=layers, vocab_size=16)
        small = Policy(architecture, policy.remat, attention=policy.attention)
        tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)

        def backward(params, tokens):
            frozen, trained = lora.split(params)
            return jax.tree.leaves(jax.vjp(lambda p: small.forward(lora.combine(frozen, p), tokens), trained)[1])

        kept = jax.eval_shape(backward, small.abstract_params(), tokens)
        return sum(map(part, kept))

    one, two = (residuals(2, layers) - residuals(1, layers) for layers in (1, 2))
    return two - one, one - (two - one)
