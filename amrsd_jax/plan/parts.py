"""Computes the bytes that parts of a policy take on one device: sums over abstract arrays, and estimates of temporaries."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from amrsd_jax import experiment
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Policy, lora
from amrsd_jax.policy import cache as caches
from amrsd_jax.policy.attention import BLOCK
from amrsd_jax.policy.experts import block_shape
from amrsd_jax.sampling import SamplerConfig


def bytes_of(tree: PyTree, shardings: PyTree) -> int:
    """Returns the bytes of one device's shards of a tree."""
    return sum(jax.tree.leaves(jax.tree.map(_shard_bytes, tree, shardings)))


def _shard_bytes(array: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(array.shape)) * array.dtype.itemsize


def decoding_weights(policy: Policy, mesh: Mesh) -> int:
    """Returns the bytes of the copy of the weights that decoding reads."""
    weights = jax.eval_shape(policy.for_decoding, policy.abstract_params())
    return bytes_of(weights, experiment.decoding_shardings(policy, mesh))


def gathered(policies: Sequence[Policy]) -> int:
    """Returns the bytes of the layers and heads that policies with parameters of their own use in one program.

    The head of a policy with adapters is frozen, and that of its copies too.
    """
    heads = set(policies) if policies[0].architecture.lora else policies
    return max(map(gathered_layers, policies)) + sum(map(head, heads))


def gathered_layers(policy: Policy) -> int:
    """Returns the bytes of two layers gathered over fsdp, one in use and the next, and of all layers' shards, cast before."""
    if policy.mesh.shape["fsdp"] == 1:
        return 0
    stored = {"layers": policy.abstract_params()["layers"]}
    cast = jax.eval_shape(policy.cast_params, stored)
    gathered = bytes_of(cast, meshes.shardings(cast, policy.mesh, over=("tensor",)))
    own = jax.tree.map(_shard_bytes, cast, meshes.shardings(cast, policy.mesh))
    changed = jax.tree.map(lambda size, old, new: size * (old.dtype != new.dtype), own, stored, cast)
    return 2 * gathered // policy.architecture.layers + sum(jax.tree.leaves(changed))


def head(policy: Policy) -> int:
    """Returns the bytes of the output projection as a pass uses it: cast, and gathered over fsdp."""
    c = policy.architecture
    if policy.mesh.shape["fsdp"] == 1 and c.dtype == "float32":
        return 0
    return c.width * _split(policy, c.vocab_size) * jnp.dtype(c.dtype).itemsize


def head_gradient(policy: Policy) -> int:
    """Returns the bytes of the output projection's gradient before it is summed over fsdp, in float32."""
    c = policy.architecture
    if policy.mesh.shape["fsdp"] == 1 or c.lora:
        return 0
    return 4 * c.width * _split(policy, c.vocab_size)


def device_rows(rows: int, mesh: Mesh) -> int:
    """Returns the number of rows on one device."""
    return -(-rows // row_devices(mesh))


def cache(policy: Policy, sampler: SamplerConfig) -> int:
    """Returns the bytes of the keys and values of one device's slots."""
    c, layout = policy.architecture, policy.cache_layout
    length = caches.round_up(sampler.length, layout)
    token = jax.ShapeDtypeStruct((sampler.slots, length, c.kv_heads, c.head_dim), jnp.dtype(c.dtype))
    layer = jax.eval_shape(layout.lay_out, token, token)
    return c.layers * bytes_of([layer], caches.shardings([layer], sampler.sharding))


def prefill(policy: Policy, sampler: SamplerConfig, longest: int) -> int:
    """Returns the bytes of an admission: a forward pass, keys and values of a device's prompts, and one layer's of all.

    Args:
      longest: tokens of the longest prompt in it.
    """
    c, width = policy.architecture, sampler.prompt_width(longest)
    rows = sampler.prompts_per_admission(longest) // sampler.shards
    layer = 2 * _split(policy, c.kv_heads) * c.head_dim * jnp.dtype(c.dtype).itemsize * width
    everywhere = layer * rows * sampler.shards if sampler.shards > 1 else 0
    return forward(policy, rows, width) + rows * c.layers * layer + everywhere


def activations(policy: Policy, rows: int, length: int, before: int = 0) -> tuple[int, int]:
    """Returns the bytes kept for the backward pass of some rows, and the bytes that one layer adds while it is recomputed.

    Args:
      before: tokens of a shared prompt that a row follows. Its scores are then not computed in blocks, and are kept as all else.
    """
    per_layer, outside = kept(policy, length)
    scores = _scores(policy, length, before)
    if before and policy.remat == "none":
        per_layer += scores // 3
    recomputed = 0 if policy.remat == "none" else kept(dataclasses.replace(policy, remat="none"), length)[0]
    inner = rows * (recomputed + scores) + 2 * _copied_experts(policy, rows * length)  # and gradients
    return rows * (policy.architecture.layers * per_layer + outside), inner


def forward(policy: Policy, rows: int, length: int) -> int:
    """Returns the peak bytes of a forward pass: residuals, and a layer's attention scores or activations of gated blocks."""
    c = policy.architecture
    token = jnp.dtype(c.dtype).itemsize * length  # bytes of one value at every position
    blocks = max(1, 2 * c.experts_per_token)  # half of the rows of the experts' blocks may be empty
    inner = max(_scores(policy, length), token * blocks * 2 * (_split(policy, c.ffn) + c.width))
    return rows * (inner + 2 * token * c.width) + _copied_experts(policy, rows * length)


def _copied_experts(policy: Policy, tokens: int) -> int:
    """Returns the bytes of two kernels of the experts, which the program copies for each block of tokens."""
    c = policy.architecture
    if not c.experts:
        return 0
    blocks = block_shape(tokens * c.experts_per_token, c.experts)[1]
    return 2 * blocks * c.width * _split(policy, c.ffn) * jnp.dtype(c.dtype).itemsize


def _scores(policy: Policy, length: int, before: int = 0) -> int:
    """Returns the bytes of a row's attention scores that exist at a time: three float32 arrays in the compiled program.

    After a shared prompt of `before` tokens these are all scores.
    """
    queries = length if before else min(length, BLOCK) * (policy.attention == "xla")
    return 3 * 4 * _split(policy, policy.architecture.heads) * queries * (before + length)


def row_of_logits(policy: Policy) -> int:
    """Returns the bytes of one token's logits, in float32."""
    return 4 * _split(policy, policy.architecture.vocab_size)


def _split(policy: Policy, size: int) -> int:
    """Returns a device's part of an axis that is split over `tensor`: of heads, SwiGLU activations or the vocabulary.

    It is the whole axis where the devices do not divide it, as in `learning.mesh`.
    """
    ways = _ways(policy)
    return size if size % ways else size // ways


def _ways(policy: Policy) -> int:
    return 1 if policy.mesh is None else policy.mesh.shape["tensor"]


@functools.lru_cache
def kept(policy: Policy, length: int) -> tuple[int, int]:
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
