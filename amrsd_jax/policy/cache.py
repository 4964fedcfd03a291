"""Keys and values of rows in flight: how they lie, how tokens are added, and the attention of one query per row over them.

The keys of a block of positions lie as [H, positions], so that scores are products of the form that mixes the values, too.
As [positions, H] they would be turned round at every step, which on a CPU takes several times as long as the product.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

Cache = list[tuple[Array, Array]]  # per layer: keys [B, K, S / block, H, block] and values [B, K, S, H]


def block() -> int:
    """Positions whose keys lie together: a CPU's matrix product takes 64 columns as they are, a TPU's lanes are 128."""
    return 128 if jax.default_backend() == "tpu" else 64


def rounded(length: int) -> int:
    """Positions of the whole blocks that hold so many."""
    return -(-length // block()) * block()


def lay_out(k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]) -> tuple[Array, Array]:
    """Keys and values of whole rows as a cache holds them, T rounded up to whole blocks."""
    room = ((0, 0), (0, rounded(k.shape[1]) - k.shape[1]), (0, 0), (0, 0))
    k, v = jnp.pad(k, room), jnp.pad(v, room)
    rows, length, heads, size = k.shape
    return k.reshape(rows, length // block(), block(), heads, size).transpose(0, 3, 1, 4, 2), v.swapaxes(1, 2)


def resize(buffer: Array, length: int) -> Array:
    """Keys or values with room for so many positions, whole blocks of them."""
    units = length if buffer.ndim == 4 else length // buffer.shape[-1]
    room = [(0, 0)] * buffer.ndim
    room[2] = (0, max(0, units - buffer.shape[2]))
    return jnp.pad(buffer, room)[:, :, :units]


def append(
    keys: Float[Array, "B K n H b"],
    values: Float[Array, "B K S H"],
    k: Float[Array, "B K H"],
    v: Float[Array, "B K H"],
    position: Integer[Array, " B"],
) -> tuple[Array, Array]:
    """Writes one token per row at its position; S or more is not written."""
    rows, size = jnp.arange(len(position)), keys.shape[-1]
    keys = keys.at[rows, :, position // size, :, position % size].set(k.astype(keys.dtype), mode="drop")
    return keys, values.at[rows, :, position].set(v.astype(values.dtype), mode="drop")


def attend(
    q: Float[Array, "B N H"],
    keys: Float[Array, "B K n H b"],
    values: Float[Array, "B K S H"],
    live: Bool[Array, "B S"],
) -> Float[Array, "B N H"]:
    """Attention of one query per row over the live part of its cache, N / K queries a key and value head; softmax in float32."""
    rows, heads, blocks, size, _ = keys.shape
    q = jnp.broadcast_to(q.reshape(rows, heads, 1, -1, size), (rows, heads, blocks, q.shape[1] // heads, size))
    scores = jnp.einsum("BKnGH,BKnHb->BKnGb", q, keys, preferred_element_type=jnp.float32) * size**-0.5
    scores = scores.swapaxes(2, 3).reshape(rows, heads, -1, values.shape[2])
    scores = jnp.where(live[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("BKGS,BKSH->BKGH", weights, values).reshape(rows, -1, size)
