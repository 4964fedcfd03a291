"""Samples tokens from logits with a temperature, top-k and top-p per row.

The vocabulary is never sorted, and a token takes far fewer random numbers than the vocabulary has entries.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, UInt32

_DROPPED = -jnp.inf
_LEAST = 1e-30  # the most likely token has more; a limit that rounds to 0 would be reached without any token
_BLOCK = 128  # adjacent vocabulary entries; one block is sampled by its mass, then one entry of the block


def sample(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    *,
    temperature: Float[Array, " B"],
    top_k: Integer[Array, " B"],
    top_p: Float[Array, " B"],
    absent: tuple[range, ...] = (),
) -> tuple[Integer[Array, " B"], Float[Array, " B"]]:
    """Samples one token per row.

    Args:
      logits: float32, before the temperature.
      keys: one key per row.
      temperature: 0 chooses the most likely token.
      top_k: keeps the k most likely tokens and ties with the k-th; 0 keeps all.
      top_p: keeps the smallest set of most likely tokens with a probability of at least p, after top-k; 1 keeps all.
      absent: ids that are never sampled: padding of the vocabulary, and gaps in the tokenizer's ids.

    Returns:
      The tokens, and their log-probabilities under the distributions they were sampled from (0 where temperature is 0). The
      probability of absent ids counts as that of ids that were not sampled, as it does where the policy is trained: training
      lowers it then, and programs that load an export sample none of them either.
    """
    never = _mask(absent, logits.shape[-1])
    greedy = temperature <= 0
    temperature = jnp.where(greedy, 1.0, temperature)
    truncated = (top_k > 0) | (top_p < 1)
    lowest = jax.lax.cond(
        jnp.any(truncated),
        lambda: lowest_kept(_drop(logits, never), temperature, top_k, top_p),
        lambda: jnp.full(len(logits), _DROPPED),
    )
    dropped = logits < lowest[:, None]
    if never.any():
        dropped |= truncated[:, None] & never
    warped = jnp.where(dropped, _DROPPED, logits / temperature[:, None])
    token, normaliser = sample_token(warped, keys, greedy, never)
    logit = jnp.take_along_axis(warped, token[:, None], axis=-1)[:, 0]
    return token, jnp.where(greedy, 0.0, logit - normaliser)


def sample_token(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], greedy: Bool[Array, " B"], never: Bool[np.ndarray, " V"]
) -> tuple[Integer[Array, " B"], Float[Array, " B"]]:
    """Samples a token that is not in `never` per row from softmax(logits), or takes the most likely one where `greedy`.

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
    never = np.pad(never, (0, -len(never) % width)).reshape(-1, width)
    if never.any():  # blocks with such ids have less, or nothing
        some = np.flatnonzero(never.any(axis=1))
        kept = _drop(blocks[:, some], never[some])
        mass = mass.at[:, some].set(jax.nn.logsumexp(kept, axis=-1))
        best = best.at[:, some].set(kept.max(axis=-1))
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (width + mass.shape[1],)))(keys)
    noise = jnp.where(greedy[:, None], 0.0, noise)
    block = jnp.argmax(jnp.where(greedy[:, None], best, mass) + noise[:, width:], axis=-1)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    if never.any():
        inside = _drop(inside, jnp.asarray(never)[block])
    entry = jnp.argmax(inside + noise[:, :width], axis=-1)
    return (block * width + entry).astype(jnp.int32), normaliser


def _mask(absent: tuple[range, ...], size: int) -> Bool[np.ndarray, " V"]:
    never = np.zeros(size, bool)
    for ids in absent:
        never[ids.start : ids.stop] = True
    return never


def _drop(logits: Float[Array, "..."], where: Bool[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Sets logits to -inf."""
    return jnp.where(where, _DROPPED, logits)


def lowest_kept(
    logits: Float[Array, "B V"],
    temperature: Float[Array, " B"],
    top_k: Integer[Array, " B"],
    top_p: Float[Array, " B"],
) -> Float[Array, " B"]:
    """Returns the logit of the least likely token inside top-k and top-p; tokens with the same or a higher one are kept.

    It is found digit by digit over the 32 bits of a float, which is exact and less work than a sort. Logits are compared before
    the temperature: divided by it some would be equal, and XLA may divide twice and round differently.

    Args:
      temperature: above 0; the probabilities that top-p adds up depend on it.
    """
    order, everything = _ordered(logits), jnp.zeros(len(logits), jnp.uint32)

    def by_count():
        return _reaching(order, jnp.ones(order.shape, jnp.int32), jnp.where(top_k > 0, top_k, order.shape[-1]))

    def by_probability():
        kept = jnp.where(order >= kth[:, None], logits, _DROPPED)
        probability = jax.nn.softmax(kept / temperature[:, None], axis=-1)
        return _reaching(order, probability, jnp.where(top_p < 1, jnp.maximum(top_p, _LEAST), jnp.inf))

    kth = jax.lax.cond(jnp.any(top_k > 0), by_count, lambda: everything)
    nucleus = jax.lax.cond(jnp.any(top_p < 1), by_probability, lambda: everything)
    lowest = jnp.maximum(kth, nucleus)
    bits = jnp.where(lowest >> 31, lowest ^ jnp.uint32(1 << 31), ~lowest)
    value = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(lowest == 0, _DROPPED, value)


def _ordered(x: Float[Array, "B V"]) -> UInt32[Array, "B V"]:
    """Maps floats to unsigned integers of the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def _reaching(order, weight, limit):
    """Returns the largest t [B] for which the entries with `order >= t` have together at least `limit` of weight, or 0.

    Each pass over a row finds some of t's bits, by the sums for every value of them but 0. A TPU waits for memory, so few passes
    are best; a CPU computes one sum after the other, so few sums are; a GPU launches kernels for both.
    """
    bits = {name: functools.partial(_search, bits=n) for name, n in {"cpu": 1, "tpu": 4, "default": 2}.items()}
    return jax.lax.platform_dependent(order, weight, limit, **bits)


def _search(order, weight, limit, *, bits):
    def next_bits(i, found):
        unit = jnp.uint32(1) << (32 - bits * (i + 1)).astype(jnp.uint32)
        reached = jnp.zeros_like(found)
        for value in range(1, 1 << bits):
            above = order >= (found + value * unit)[:, None]
            reached += jnp.sum(jnp.where(above, weight, 0), axis=-1) >= limit
        return found + reached * unit

    return jax.lax.fori_loop(0, 32 // bits, next_bits, jnp.zeros(len(order), jnp.uint32))
