"""From logits to a sampled token: temperature, top-k, top-p as arrays of one value per row.

No sort of the vocabulary, and far fewer random numbers than it has entries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key

_DROPPED = -jnp.inf
_BLOCK = 128  # entries of the vocabulary that are drawn from together


def sample(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    *,
    temperature: Float[Array, " B"],
    top_k: Integer[Array, " B"],
    top_p: Float[Array, " B"],
) -> tuple[Integer[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Draws one token per row.

    Args:
      logits: unscaled, float32.
      keys: one key per row; rows never share noise.
      temperature: 0 takes the most likely token.
      top_k: 0 keeps all; otherwise the k most likely (ties with the k-th are kept).
      top_p: 1 keeps all; otherwise the smallest set of most likely tokens whose mass reaches p, after top-k.

    Returns:
      token [B]; its log-probability under the distribution it was drawn from (0 for a greedy choice) [B]; its
      log-probability at temperature 1, nothing truncated [B].
    """
    greedy = temperature <= 0
    scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
    truncating = jnp.any((top_k > 0) | (top_p < 1))
    warped = jax.lax.cond(truncating, lambda: truncate(scaled, top_k, top_p), lambda: scaled)
    token, normaliser = draw(warped, keys, greedy)

    def at(x):
        return jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]

    logp = jnp.where(greedy, 0.0, at(warped) - normaliser)
    return token, logp, at(logits) - jax.nn.logsumexp(logits, axis=-1)


def draw(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], greedy: Bool[Array, " B"]
) -> tuple[Integer[Array, " B"], Float[Array, " B"]]:
    """A token from softmax(logits), or the most likely one where `greedy`; and the logarithm of the softmax's denominator.

    A block of the vocabulary is drawn by its mass and then an entry of the block, each by the Gumbel trick. This is exact
    and needs V / 128 + 128 random numbers a row, where one draw from all of the vocabulary needs V.
    """
    width = min(_BLOCK, logits.shape[-1])
    blocks = jnp.pad(logits, ((0, 0), (0, -logits.shape[-1] % width)), constant_values=_DROPPED)
    blocks = blocks.reshape(len(logits), -1, width)
    mass = jax.nn.logsumexp(blocks, axis=-1)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (width + mass.shape[1],)))(keys)
    noise = jnp.where(greedy[:, None], 0.0, noise)
    block = jnp.argmax(jnp.where(greedy[:, None], blocks.max(axis=-1), mass) + noise[:, width:], axis=-1)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    entry = jnp.argmax(inside + noise[:, :width], axis=-1)
    return (block * width + entry).astype(jnp.int32), jax.nn.logsumexp(mass, axis=-1)


def truncate(
    logits: Float[Array, "B V"], top_k: Integer[Array, " B"], top_p: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Sets the logits of dropped tokens to -inf.

    Both rules keep the tokens at or above a threshold, which is found by bisection over the 32 bits of a float: exact,
    and each step is one pass over the row where a sort would be many.
    """
    order = _ordered(logits)
    count = jnp.where(top_k > 0, top_k, logits.shape[-1])
    kept = _at_least(order, lambda above: jnp.sum(above, axis=-1) < count)
    logits = jnp.where(kept, logits, _DROPPED)
    probability = jax.nn.softmax(logits, axis=-1)
    limit = jnp.where(top_p < 1, top_p, jnp.inf)
    kept &= _at_least(order, lambda above: jnp.sum(probability * above, axis=-1) < limit)
    return jnp.where(kept, logits, _DROPPED)


def _ordered(x: Float[Array, "B V"]) -> Integer[Array, "B V"]:
    """Unsigned integers in the order of the floats."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def _at_least(order, wanted):
    """Marks entries at or above the lowest threshold t for which `wanted(order > t)` still holds.

    `wanted` is true of a small enough set above the threshold; the token at the threshold itself is kept, so that the
    set that reaches the limit is the smallest one that does.
    """

    def halve(_, bounds):
        low, high = bounds  # wanted holds at `high`, not below `low`
        middle = low + (high - low) // 2
        holds = wanted(order > middle[:, None])
        return jnp.where(holds, low, middle + 1), jnp.where(holds, middle, high)

    rows = order.shape[0]
    bounds = jnp.zeros(rows, jnp.uint32), jnp.full(rows, 0xFFFFFFFF, jnp.uint32)
    threshold, _ = jax.lax.fori_loop(0, 32, halve, bounds)
    return order >= threshold[:, None]
