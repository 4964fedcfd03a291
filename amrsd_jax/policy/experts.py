"""Implements a mixture of experts: each token passes through the k gated blocks that a router selects (Qwen3-MoE).

Tokens are sorted by expert and cut into blocks, each of one expert; an expert's last block is filled up. Blocks and their
experts' weights are then one batched matrix product, on every platform. A block is about as long as an expert has tokens on
average, so at most about twice the selected products are computed, and about twice a layer's experts are copied.
(`jax.lax.ragged_dot` copies nothing on TPUs, but on CPUs and GPUs it multiplies every token by every expert.)

On a mesh each device routes its own tokens, and the inner size of the experts is split over `tensor`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Integer

from amrsd_jax.platforms import ROWS, row_devices

BLOCK = (8, 512)  # fewest and most tokens per block


class ExpertKernels(nnx.Module):
    """The kernels of one projection of every expert."""

    def __init__(self, experts: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        self.kernel = nnx.Param(init(rngs.params(), (experts, inputs, outputs), jnp.float32))


def mixture(
    h: Float[Array, "M D"],
    router: Float[Array, "D E"],
    kernels: tuple[Float[Array, "E D F"], Float[Array, "E D F"], Float[Array, "E F D"]],
    *,
    k: int,
    normalised: bool,
    activation: Callable,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "M D"], Integer[Array, "M k"]]:
    """Returns for each token the sum of its experts' outputs times their weights, and the numbers of these experts.

    Args:
      h: tokens; on a mesh they are split over data and fsdp, where these divide them.
      router: kernel of the router.
      kernels: gate, up and down projections of every expert.
      k, normalised: see `route`.
      activation: function of the gate.
      mesh: the devices' mesh; None on one device.
    """

    def local(h, router, gate, up, down):
        weights, chosen = route(h, router, k, normalised)
        blocks = sort(chosen, len(router.T))
        x = h[blocks.token]
        out = _product(activation(_product(x, gate, blocks)) * _product(x, up, blocks), down, blocks)
        out = out.reshape(-1, h.shape[1])[blocks.place]
        mixed = jnp.einsum("MkD,Mk->MD", out, weights, preferred_element_type=jnp.float32)
        if split:
            mixed = jax.lax.psum(mixed, split)
        return mixed.astype(h.dtype), chosen

    kernels = tuple(kernel.astype(h.dtype) for kernel in kernels)  # before they are gathered over fsdp
    split = None
    if mesh is not None:
        split = "tensor" if kernels[0].shape[2] % mesh.shape["tensor"] == 0 else None
        rows = P(*(P(None) if len(h) % row_devices(mesh) else ROWS), None)
        inner = P(None, None, split)
        specs = dict(in_specs=(rows, P(), inner, inner, P(None, split)), out_specs=(rows, rows), check_vma=False)
        local = jax.shard_map(local, mesh=mesh, **specs)
    return jax.checkpoint(local, policy=_but_copies, prevent_cse=False)(h, router, *kernels)


def _but_copies(primitive, *_, **__) -> bool:
    """Says what is kept for the backward pass: all but what is gathered, of which the blocks' kernels are the largest part."""
    return primitive.name != "gather"


def route(
    h: Float[Array, "M D"], router: Float[Array, "D E"], k: int, normalised: bool
) -> tuple[Float[Array, "M k"], Integer[Array, "M k"]]:
    """Returns the weights and numbers of each token's experts: the k largest of a softmax over all, in float32.

    Args:
      normalised: whether the weights of a token are divided by their sum.
    """
    logits = jnp.matmul(h, router.astype(h.dtype), preferred_element_type=jnp.float32)
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), k)
    return weights / weights.sum(axis=-1, keepdims=True) if normalised else weights, chosen


class Blocks(NamedTuple):
    """Tokens sorted by expert, in blocks of one expert each.

    Attributes:
      expert: the expert of each block.
      token: the tokens of each block; what fills up an expert's last block is any token.
      place: for each token and each of its experts the place among the n b rows of the blocks.
    """

    expert: Integer[Array, " n"]
    token: Integer[Array, "n b"]
    place: Integer[Array, "M k"]


def block_shape(pairs: int, experts: int) -> tuple[int, int]:
    """Returns the tokens per block, and the number of blocks, for as many pairs of a token and one of its experts."""
    size = min(max(BLOCK[0], 1 << (pairs // experts).bit_length()), BLOCK[1])
    return size, min(pairs, pairs // size + experts)  # an expert with tokens has at most one block that is not full


def sort(chosen: Integer[Array, "M k"], experts: int) -> Blocks:
    """Returns the blocks of tokens with the given experts; their number depends on the shape alone."""
    pairs, k = chosen.size, chosen.shape[1]
    size, count = block_shape(pairs, experts)
    flat = chosen.reshape(-1)
    order = jnp.argsort(flat)  # is stable
    tokens = jnp.bincount(flat, length=experts)
    begin = jnp.cumsum(tokens) - tokens  # of each expert, in `order`
    full = -(-tokens // size)
    end = jnp.cumsum(full)  # of each expert's blocks
    expert = jnp.minimum(jnp.searchsorted(end, jnp.arange(count), side="right"), experts - 1)
    first = (jnp.arange(count) - (end - full)[expert]) * size  # of each block's tokens, among its expert's
    source = begin[expert][:, None] + first[:, None] + jnp.arange(size)
    place = (end - full)[flat[order]] * size + jnp.arange(pairs) - begin[flat[order]]
    place = jnp.zeros(pairs, place.dtype).at[order].set(place)
    return Blocks(expert, order.at[source].get(mode="clip") // k, place.reshape(chosen.shape))


def _product(x: Float[Array, "n b I"], kernels: Float[Array, "E I O"], blocks: Blocks) -> Float[Array, "n b O"]:
    """Returns each block times the kernel of its expert."""
    return jnp.einsum("nbI,nIO->nbO", x, kernels[blocks.expert])


def expert_tokens(chosen: Integer[Array, "L N S k"], counted: Bool[Array, "N S"], experts: int) -> Float[Array, "L E"]:
    """Returns how many of the tokens that count pass through each expert of each layer."""
    weight = jnp.broadcast_to(counted[..., None], chosen.shape[1:]).astype(jnp.float32).reshape(-1)
    return jax.vmap(lambda layer: jnp.zeros(experts).at[layer.reshape(-1)].add(weight))(chosen)


def load_metrics(tokens: Float[Array, "L E"]) -> dict[str, Float[Array, ""]]:
    """Returns means over layers: tokens of the busiest expert, as a multiple of the mean; the share of experts without any."""
    mean = jnp.maximum(tokens.mean(axis=1), 1e-9)
    return {"expert_load_max": jnp.mean(tokens.max(axis=1) / mean), "experts_idle": jnp.mean(tokens == 0)}
