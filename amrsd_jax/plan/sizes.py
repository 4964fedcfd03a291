"""What a run holds, part by part, in bytes on one device: sums over shards of abstract arrays, and estimates of temporaries."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree
from ml_collections import ConfigDict

from amrsd_jax import build, credit, tasks
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.step import abstract_state, state_shardings
from amrsd_jax.policy import Architecture, Policy, lora
from amrsd_jax.policy.attention import BLOCK
from amrsd_jax.policy.cache import rounded
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.reflection.sources import sources_in
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.sampling import Layout
from amrsd_jax.scoring.teachers import Teacher

_LOGITS = 3  # float32 arrays [tokens, V] alive at once in a chunk's backward pass: logits, softmax, a gradient


@dataclasses.dataclass(frozen=True)
class Planned:
    """The parts of a run that decide what it holds.

    Attributes:
      config: resolved.
      policy, external: what learns; the other run's model, if there is one.
      mesh: over which all is split.
      optimizer: of the policy.
      layouts: of the sampler.
    """

    config: ConfigDict
    policy: Policy
    external: Policy | None
    mesh: Mesh
    optimizer: optax.GradientTransformation
    layouts: dict[str, Layout]

    @property
    def kept(self) -> Policy | None:
        """The model whose parameters are kept for the teacher, if any."""
        return Teacher(self.config.teacher.kind, self.policy, self.external).kept

    @property
    def distils(self) -> bool:
        return bool(credit.get(self.config.credit.rule).distil)

    @property
    def answer(self) -> int:
        """Longest response."""
        return self.config.rollout.response_length

    @property
    def micro_batch(self) -> int:
        """Rows of a micro-batch, on all devices."""
        config = self.config
        rows = config.rollout.prompts * config.rollout.group
        return rows // (config.learning.minibatches * config.learning.micro_batches)


def planned(config: ConfigDict, workdir: Path) -> Planned:
    """The parts of a resolved config. Neither weights nor rows are read, nor a tokenizer that the config names.

    Raises:
      ValueError: the parts do not fit together.
    """
    mesh = meshes.make_mesh(**config.mesh)
    external, theirs = None, config.external.workdir
    if theirs:
        external = _policy(read_config(Path(theirs)), Path(theirs), mesh)
    layouts = build.make_layouts(config, mesh, stop_tokens=())
    return Planned(config, _policy(config, workdir, mesh), external, mesh, build.make_update(config)[1], layouts)


def _policy(config: ConfigDict, workdir: Path, mesh: Mesh) -> Policy:
    """The policy of a config; an embedded tokenizer, which decides its vocabulary, is made for it."""
    if config.tokenizer:
        return build.make_policy(config, None, mesh)
    task = tasks.make(config.task.name, dict(config.task.args), config.seed)
    texts = templates(task.family, **config.reflection.templates)
    return build.make_policy(config, build.make_tokenizer(config, texts, task, workdir), mesh)


# ---------------------------------------------------------------- the table


def always(run: Planned) -> dict[str, int]:
    """Bytes of what is there during the whole run, by name."""
    state = abstract_state(run.policy, run.optimizer, teacher=run.kept)
    where = state_shardings(run.policy, run.optimizer, run.mesh, teacher=run.kept)
    whole = run.policy.abstract_params()
    critic = "critic_feedback" in sources_in(run.config.credit.context)
    return {
        "parameters": _held(whole, meshes.shardings(whole, run.mesh)),
        "optimiser": _held(state.opt_state, where.opt_state),
        "teacher": _held(state.teacher, where.teacher),
        "reference policy": _held(state.params, where.params) if run.config.loss.kl else 0,  # a frozen base is shared
        "critic": _critic(run) if critic else 0,
    }


def phases(run: Planned) -> dict[str, dict[str, int]]:
    """Bytes that each phase adds for its time, by phase and name. Logits and what a layer holds inside are not there
    together: the former count for what they take beyond the latter."""
    c, config, mesh = run.policy.architecture, run.config, run.mesh
    layouts = run.layouts.values()
    prompt = max(config.rollout.prompt_length, config.reflection.context_length)
    learned = lora.learns(run.policy.abstract_params())
    scored = _forward(run.policy, _rows(config.scoring.rows, mesh), prompt + run.answer)
    (kept, inner), taught = _activations(run), 2 if run.distils else 1
    return {
        "sample": {
            "keys and values": max(_cache(c, layout) for layout in layouts),
            "decoding weights": _decoding(run.policy, run.mesh),
            "gathered weights": _gathered(run),
            "prefill": max(_forward(run.policy, layout.admit, layout.prompt_length) for layout in layouts),
            "logits": max(_rows(layout.slots, mesh) for layout in layouts) * 3 * 4 * c.vocab_size,
        },
        "score": {
            "gathered weights": _gathered(run),
            "activations": scored,
            "logits": max(0, _chunk(run, config.scoring.rows) * 2 * 4 * c.vocab_size - scored),
        },
        "learn": {
            "gathered weights": _gathered(run),
            "gradients": _held(learned, meshes.shardings(learned, mesh))
            * (2 if config.learning.micro_batches > 1 else 1),
            "activations": kept + inner,
            "logits": max(0, _chunk(run, run.micro_batch) * taught * _LOGITS * 4 * c.vocab_size - inner),
        },
    }


# ---------------------------------------------------------------- parts


def _held(tree: PyTree, shardings: PyTree) -> int:
    """Bytes of a device's shards of a tree."""
    return sum(jax.tree.leaves(jax.tree.map(_shard, tree, shardings)))


def _shard(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _critic(run: Planned) -> int:
    policy = run.external or run.policy
    whole = policy.abstract_params()
    return _held(whole, meshes.shardings(whole, run.mesh)) + _decoding(policy, run.mesh)


def _decoding(policy: Policy, mesh: Mesh) -> int:
    """The weights that decoding reads."""
    return _held(jax.eval_shape(policy.for_decoding, policy.abstract_params()), build.decoding_shardings(policy, mesh))


def _gathered(run: Planned) -> int:
    """Weights that fsdp splits and a pass over them gathers: two layers at a time, and the ends."""
    if run.mesh.shape["fsdp"] == 1:
        return 0
    params = run.policy.abstract_params()
    where = meshes.shardings(params, run.mesh, over=("tensor",))
    layers = _held(params["layers"], where["layers"])
    return 2 * layers // run.policy.architecture.layers + _held(params, where) - layers


def _rows(rows: int, mesh: Mesh) -> int:
    """Rows on one device."""
    return -(-rows // (mesh.shape["data"] * mesh.shape["fsdp"]))


def _cache(c: Architecture, layout: Layout) -> int:
    """Keys and values of the slots of one device."""
    size = 2 * c.layers * c.kv_heads * c.head_dim * jnp.dtype(c.dtype).itemsize
    return _rows(layout.slots, layout.sharding.mesh) * rounded(layout.length) * size


def _chunk(run: Planned, rows: int) -> int:
    """Tokens of a device whose logits exist at one time; as `scoring.logprobs.over_chunks` cuts them."""
    return _rows(rows, run.mesh) * max(1, min(run.answer, run.config.scoring.chunk // rows))


def _activations(run: Planned) -> tuple[int, int]:
    """What the backward pass keeps of a micro-batch, and what one layer needs besides while it is recomputed."""
    rows, c = _rows(run.micro_batch, run.mesh), run.policy.architecture
    length = run.config.rollout.prompt_length + run.answer
    kept, ends = _kept(run.policy, length)
    again = 0 if run.policy.remat == "none" else _kept(dataclasses.replace(run.policy, remat="none"), length)[0]
    taught = _forward(run.policy, rows, run.config.reflection.context_length + run.answer) if run.distils else 0
    return rows * (c.layers * kept + ends) + taught, rows * (again + _scores(run.policy, length))


def _forward(policy: Policy, rows: int, length: int) -> int:
    """What a forward pass holds at one time: a layer's scores or its inner SwiGLU."""
    c = policy.architecture
    size = jnp.dtype(c.dtype).itemsize
    return rows * (
        max(_scores(policy, length), length * (2 * c.ffn + 2 * c.width) * size) + 2 * length * c.width * size
    )


def _scores(policy: Policy, length: int) -> int:
    """Attention scores of a row that exist at one time: three float32 arrays, as compiled."""
    return 0 if policy.attention != "xla" else 3 * 4 * policy.architecture.heads * min(length, BLOCK) * length


@functools.lru_cache
def _kept(policy: Policy, length: int) -> tuple[int, int]:
    """Bytes kept for the backward pass of one row: of each layer, and outside of the layers.

    Traced, not guessed: the residuals of `forward` at one and two rows and layers; their differences leave weights out.
    """

    def residuals(rows: int, layers: int) -> int:
        architecture = dataclasses.replace(policy.architecture, layers=layers, vocab_size=16)
        small = Policy(architecture, policy.remat, attention=policy.attention)
        tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)

        def backward(params, tokens):
            base, learned = lora.split(params)
            return jax.tree.leaves(jax.vjp(lambda p: small.forward(lora.join(base, p), tokens), learned)[1])

        kept = jax.eval_shape(backward, small.abstract_params(), tokens)
        return sum(math.prod(a.shape) * a.dtype.itemsize for a in kept)

    one, two = (residuals(2, layers) - residuals(1, layers) for layers in (1, 2))
    return two - one, one - (two - one)
