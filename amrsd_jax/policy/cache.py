"""Defines the key/value cache of rows in flight: its layout, how tokens are appended, and attention of one query per row.

The keys of a block of positions are stored transposed, [H, positions], as the matrix product of the scores needs them.
Stored as [positions, H] they would be transposed at every decode step, which on a CPU takes several times as long as the
product itself.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer

Cache = list[tuple[Array, Array]]  # per layer: keys [B, K, S / block, H, block] and values [B, K, S, H]


def block() -> int:
    """Returns the number of positions per block of keys: 128 on a TPU, the width of its vector unit, and 64 elsewhere."""
    return 128 if jax.default_backend() == "tpu" else 64


def round_up(length: int) -> int:
    """Returns a length rounded up to whole blocks."""
    return -(-length // block()) * block()


def spec(layer: tuple[Array, Array], rows: NamedSharding) -> PartitionSpec:
    """Returns how the arrays of a layer are split: rows as given, heads over `tensor` unless it does not divide them."""
    split = "tensor" if layer[0].shape[1] % rows.mesh.shape["tensor"] == 0 else None
    return PartitionSpec(*rows.spec, split)


def shardings(cache: Cache, rows: NamedSharding) -> list:
    """Returns the sharding of each array of a cache.

    Args:
      cache: arrays or their shapes.
      rows: sharding of the axis of rows.
    """
    return [jax.tree.map(lambda _: NamedSharding(rows.mesh, spec(layer, rows)), layer) for layer in cache]  # noqa: B023


def lay_out(k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]) -> tuple[Array, Array]:
    """Returns keys and values of whole rows in the layout of a cache, T rounded up to whole blocks."""
    padding = ((0, 0), (0, round_up(k.shape[1]) - k.shape[1]), (0, 0), (0, 0))
    k, v = jnp.pad(k, padding), jnp.pad(v, padding)
    rows, length, heads, size = k.shape
    return k.reshape(rows, length // block(), block(), heads, size).transpose(0, 3, 1, 4, 2), v.swapaxes(1, 2)


def resize(buffer: Array, length: int) -> Array:
    """Returns keys or values padded or cut to `length` positions, a multiple of the block."""
    size = length if buffer.ndim == 4 else length // buffer.shape[-1]
    padding = [(0, 0)] * buffer.ndim
    padding[2] = (0, max(0, size - buffer.shape[2]))
    return jnp.pad(buffer, padding)[:, :, :size]


def append(
    keys: Float[Array, "B K n H b"],
    values: Float[Array, "B K S H"],
    k: Float[Array, "B K H"],
    v: Float[Array, "B K H"],
    position: Integer[Array, " B"],
) -> tuple[Array, Array]:
    """Returns the cache with the keys and values of one token per row at its position; tokens at S or beyond are dropped."""
    rows, size = jnp.arange(len(position)), keys.shape[-1]
    keys = keys.at[rows, :, position // size, :, position % size].set(k.astype(keys.dtype), mode="drop")
    return keys, values.at[rows, :, position].set(v.astype(values.dtype), mode="drop")


def attend(
    q: Float[Array, "B N H"],
    keys: Float[Array, "B K n H b"],
    values: Float[Array, "B K S H"],
    live: Bool[Array, "B S"],
) -> Float[Array, "B N H"]:
    """Returns the attention of one query per row over the `live` positions of its cache; the softmax is in float32."""
    rows, heads, blocks, size, _ = keys.shape
    q = jnp.broadcast_to(q.reshape(rows, heads, 1, -1, size), (rows, heads, blocks, q.shape[1] // heads, size))
    scores = jnp.einsum("BKnGH,BKnHb->BKnGb", q, keys, preferred_element_type=jnp.float32) * size**-0.5
    scores = scores.swapaxes(2, 3).reshape(rows, heads, -1, values.shape[2])
    scores = jnp.where(live[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("BKGS,BKSH->BKGH", weights, values).reshape(rows, -1, size)
