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
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.sampling import SamplerConfig
from amrsd_jax.scoring.teachers import Teacher
from amrsd_jax.tasks import registry
from amrsd_jax.validate import validate

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
    def stored(self) -> Policy | None:
        """The model of the parameters that are stored for the teacher, None if none are stored."""
        return Teacher(self.config.teacher, self.policy, self.external).stored

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
        external = _policy(validate(read_config(other)), other, mesh)
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
    state = abstract_state(run.policy, run.optimizer, teacher=run.stored)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.stored)
    whole = run.policy.abstract_params()
    return {
        "parameters": _bytes(whole, meshes.shardings(whole, run.mesh)),
        "optimiser": _bytes(state.opt_state, where.opt_state),
        "teacher": _bytes(state.teacher, where.teacher),
        # With adapters only these are copied; the frozen base model is shared.
        "reference policy": _bytes(state.params, where.params) if run.config.loss.kl else 0,
        "critic": _critic(run) if "critic" in run.streams else 0,
    }


def phases(run: Planned) -> dict[str, dict[str, int]]:
    """Returns the bytes that each phase adds while it runs, by phase and item.

    Logits and the temporaries of a layer do not exist at the same time, so logits count only as far as they exceed those.
    """
    config, mesh = run.config, run.mesh
    prompt = max(config.rollout.prompt_length, config.reflection.context_length)
    forward = _forward(run.policy, _rows(config.scoring.rows, mesh), prompt + run.response_length)
    weights, samplers = _decoding(run.policy, mesh), run.streams.values()
    prefills = ({"keys and values": _cache(run.policy, one), "prefill": _prefill(run.policy, one)} for one in samplers)
    logits = max(_rows(sampler.slots, mesh) for sampler in samplers) * 3 * _row_of_logits(run.policy)
    warmup, width = config.reflection.warmup, config.warmup_row_length
    copies = 2 if warmup.rehearsal else 1  # what is trained has the size of its gradient, and is kept as it was
    warm_up = {"warm up": _learning(run, warmup.rows, width, width, copies=copies)} if warmup.attempts else {}
    return warm_up | {
        "prepare": {"decoding weights": weights, "weights in the making": _head(run) if mesh.shape["fsdp"] > 1 else 0},
        "prefill": {
            **max(prefills, key=lambda parts: sum(parts.values())),
            "decoding weights": weights,
            "gathered weights": _gathered_layers(run),  # few tokens have logits, so that the head stays as it is
        },
        "decode": {
            "keys and values": max(_cache(run.policy, sampler) for sampler in samplers),
            "decoding weights": weights,
            "logits": logits,
        },
        "score": {
            "gathered weights": _gathered_layers(run) + _head(run),
            "activations": forward,
            "logits": max(0, _chunk(run, config.scoring.rows, run.response_length) * _row_of_logits(run.policy) - forward),
        },
        "update": _learning(
            run, run.micro_batch, config.rollout.prompt_length + run.response_length, run.response_length,
            teacher=config.reflection.context_length + run.response_length if run.distils else 0,
            copies=2 if accumulates(config.loss, config.learning) else 1,  # the sum, and those of a micro-batch
            shared=run.shared_prompts,
        ),
    }  # fmt: skip


def saved(run: Planned) -> int:
    """Returns the bytes of a device's part of a checkpoint, which has no frozen parameters."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.stored).replace(frozen=None)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.stored)
    return sum(_bytes(getattr(state, name), getattr(where, name)) for name in ("params", "opt_state", "teacher"))


def _learning(
    run: Planned, rows: int, length: int, scored: int, *, teacher: int = 0, copies: int = 1, shared: int = 0
) -> dict[str, int]:
    """Returns the bytes that an update adds, by item.

    Args:
      rows: rows whose gradient is computed at one time.
      length, scored: tokens of a row, and those that have logits.
      teacher: tokens of a row of the teacher, 0 without one.
      copies: gradients that exist at one time.
      shared: prompts that are run once for all their responses, of `scored` tokens; 0 if every row has its own.
    """
    trained, per_device = lora.trainable(run.policy.abstract_params()), _rows(rows, run.mesh)
    kept, inner = _activations(run.policy, per_device, length)
    if shared:
        of_prompts = _activations(run.policy, shared, length - scored)
        of_responses = _activations(run.policy, per_device, scored, before=length - scored)
        kept, inner = map(sum, zip(of_prompts, of_responses, strict=True))
    models = 2 if teacher else 1
    logits = _chunk(run, rows, scored) * models * _LOGITS * _row_of_logits(run.policy)
    return {
        "gathered weights": _gathered_layers(run) + _head(run),
        "gradients": _bytes(trained, meshes.shardings(trained, run.mesh)) * copies + _head_gradient(run),
        "activations": kept + inner + (_forward(run.policy, per_device, teacher) if teacher else 0),
        "logits": max(0, logits - inner),
    }


# ---------------------------------------------------------------- parts


def _bytes(tree: PyTree, shardings: PyTree) -> int:
    """Returns the bytes of one device's shards of a tree."""
    return sum(jax.tree.leaves(jax.tree.map(_shard_bytes, tree, shardings)))


def _shard_bytes(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _critic(run: Planned) -> int:
    """Returns the bytes of the critic's parameters and of its copy for decoding."""
    policy = run.external or run.policy
    whole = policy.abstract_params()
    own = whole if run.external else lora.trainable(whole)  # the frozen base model is shared
    return _bytes(own, meshes.shardings(own, run.mesh)) + _decoding(policy, run.mesh)


def _decoding(policy: Policy, mesh: Mesh) -> int:
    """Returns the bytes of the copy of the weights that decoding reads."""
    weights = jax.eval_shape(policy.for_decoding, policy.abstract_params())
    return _bytes(weights, experiment.decoding_shardings(policy, mesh))


def _gathered_layers(run: Planned) -> int:
    """Returns the bytes of two layers gathered over fsdp, one in use and the next, and of all layers' shards, cast before."""
    if run.mesh.shape["fsdp"] == 1:
        return 0
    stored = {"layers": run.policy.abstract_params()["layers"]}
    cast = jax.eval_shape(run.policy.cast_params, stored)
    gathered = _bytes(cast, meshes.shardings(cast, run.mesh, over=("tensor",)))
    own = jax.tree.map(_shard_bytes, cast, meshes.shardings(cast, run.mesh))
    changed = jax.tree.map(lambda size, old, new: size * (old.dtype != new.dtype), own, stored, cast)
    return 2 * gathered // run.policy.architecture.layers + sum(jax.tree.leaves(changed))


def _head(run: Planned) -> int:
    """Returns the bytes of the output projection as a pass uses it: cast, and gathered over fsdp."""
    c = run.policy.architecture
    if run.mesh.shape["fsdp"] == 1 and c.dtype == "float32":
        return 0
    return c.width * c.vocab_size * jnp.dtype(c.dtype).itemsize // run.mesh.shape["tensor"]


def _head_gradient(run: Planned) -> int:
    """Returns the bytes of the output projection's gradient before it is summed over fsdp, in float32."""
    c = run.policy.architecture
    if run.mesh.shape["fsdp"] == 1 or c.lora:
        return 0
    return 4 * c.width * c.vocab_size // run.mesh.shape["tensor"]


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
