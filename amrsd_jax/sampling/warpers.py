"""Samples tokens from logits with a temperature, top-k and top-p per row.

The vocabulary is never sorted, and a token takes far fewer random numbers than the vocabulary has entries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key

_DROPPED = -jnp.inf
_BLOCK = 128  # adjacent vocabulary entries; one block is sampled by its mass, then one entry of the block


def sample(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    *,
    temperature: Float[Array, " B"],
    top_k: Integer[Array, " B"],
    top_p: Float[Array, " B"],
    entries: int | None = None,
) -> tuple[Integer[Array, " B"], Float[Array, " B"]]:
    """Samples one token per row.

    Args:
      logits: float32, before the temperature.
      keys: one key per row.
      temperature: 0 chooses the most likely token.
      top_k: keeps the k most likely tokens and ties with the k-th; 0 keeps all.
      top_p: keeps the smallest set of most likely tokens with a probability of at least p, after top-k; 1 keeps all.
      entries: ids at or beyond it, padding of the vocabulary, are never sampled; None: there are none.

    Returns:
      The tokens, and their log-probabilities under the distributions they were sampled from (0 where temperature is 0). The
      probability of padding counts as that of an id that was not sampled, as it does where the policy is trained: training
      lowers it then, and programs that load an export sample no padding either.
    """
    entries = None if entries is None or entries >= logits.shape[-1] else entries
    greedy = temperature <= 0
    scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
    truncating = jnp.any((top_k > 0) | (top_p < 1))
    warped = jax.lax.cond(truncating, lambda: truncate(_without_padding(scaled, entries), top_k, top_p), lambda: scaled)
    token, normaliser = sample_token(warped, keys, greedy, entries)
    logit = jnp.take_along_axis(warped, token[:, None], axis=-1)[:, 0]
    return token, jnp.where(greedy, 0.0, logit - normaliser)


def sample_token(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], greedy: Bool[Array, " B"], entries: int | None = None
) -> tuple[Integer[Array, " B"], Float[Array, " B"]]:
    """Samples a token below `entries` per row from softmax(logits), or takes the most likely one where `greedy`.

    A block of the vocabulary is sampled by its probability and then an entry within it, both with the Gumbel-max trick. This
    is exact and takes V / 128 + 128 random numbers a row, where sampling from the whole vocabulary at once takes V.

    Returns:
      The tokens, and logsumexp(logits).
    """
    width = min(_BLOCK, logits.shape[-1])
    blocks = jnp.pad(logits, ((0, 0), (0, -logits.shape[-1] % width)), constant_values=_DROPPED)
    blocks = blocks.reshape(len(logits), -1, width)
    mass = jax.nn.logsumexp(blocks, axis=-1)
    normaliser = jax.nn.logsumexp(mass, axis=-1)
    best = blocks.max(axis=-1)
    if entries is not None:  # the block in which padding begins has less, those behind it nothing
        edge, index = entries // width, jnp.arange(mass.shape[1])
        kept = _without_padding(blocks[:, edge], entries % width)
        mass = jnp.where(index == edge, jax.nn.logsumexp(kept, axis=-1)[:, None], mass)
        best = jnp.where(index == edge, kept.max(axis=-1)[:, None], best)
        mass, best = (jnp.where(index > edge, _DROPPED, a) for a in (mass, best))
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (width + mass.shape[1],)))(keys)
    noise = jnp.where(greedy[:, None], 0.0, noise)
    block = jnp.argmax(jnp.where(greedy[:, None], best, mass) + noise[:, width:], axis=-1)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    if entries is not None:
        inside = jnp.where(block[:, None] * width + jnp.arange(width) < entries, inside, _DROPPED)
    entry = jnp.argmax(inside + noise[:, :width], axis=-1)
    return (block * width + entry).astype(jnp.int32), normaliser


def _without_padding(logits: Float[Array, "B V"], entries: int | None) -> Float[Array, "B V"]:
    """Sets the logits of ids at or beyond `entries` to -inf."""
    return logits if entries is None else jnp.where(jnp.arange(logits.shape[-1]) < entries, logits, _DROPPED)


def truncate(
    logits: Float[Array, "B V"], top_k: Integer[Array, " B"], top_p: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Sets the logits of tokens outside top-k or top-p to -inf.

    Both keep the tokens at or above a threshold. It is found by bisection over the 32 bits of a float, which is exact and
    takes 32 passes over a row, which is less work than a sort.
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
    """Maps floats to unsigned integers of the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def _at_least(order, below_limit):
    """Marks the entries at or above the lowest threshold t for which `below_limit(order > t)` holds.

    The entries above t are still below the limit (a count or a probability) and those at t are kept too, so the marked
    set is the smallest that reaches the limit.
    """

    def halve(_, bounds):
        low, high = bounds  # the threshold lies between them; `below_limit` holds at `high`
        middle = low + (high - low) // 2
        holds = below_limit(order > middle[:, None])
        return jnp.where(holds, low, middle + 1), jnp.where(holds, middle, high)

    rows = order.shape[0]
    bounds = jnp.zeros(rows, jnp.uint32), jnp.full(rows, 0xFFFFFFFF, jnp.uint32)
    threshold, _ = jax.lax.fori_loop(0, 32, halve, bounds)
    return order >= threshold[:, None]
