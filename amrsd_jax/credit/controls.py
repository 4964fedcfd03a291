"""Control rules of our own, which only shrink the blame of failures or misplace it: better credit must do better than these."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule
from amrsd_jax.credit.oracle import oracle_first_error
from amrsd_jax.credit.quoted_blame import needs_teacher, quoted_blame
from amrsd_jax.records import Signals, TokenCredit


def scale_failures(s: Signals, *, scale: float = 1 / 9) -> TokenCredit:
    """A_t = scale A where A < 0, A elsewhere (our choice; the scale of 1/9 is from a pilot study)."""
    return TokenCredit((s.advantage * jnp.where(s.advantage < 0, scale, 1.0))[:, None] * s.mask)


def drop_failures(s: Signals) -> TokenCredit:
    """A_t = max(A, 0): the policy learns from successes only (our choice)."""
    return scale_failures(s, scale=0.0)


def random_step(s: Signals) -> TokenCredit:
    """A_t is that of `oracle_first_error`, with the first wrong step moved to a random position (our choice).

    Args:
      s: advantage [N], mask [N, T], first_error [N, 2] and noise [N] are read.
    """
    size = s.first_error[:, 1] - s.first_error[:, 0]
    start = jnp.floor(s.noise * (s.mask.sum(axis=1) - size + 1)).astype(size.dtype)
    moved = jnp.where(size[:, None] > 0, jnp.stack([start, start + size], axis=1), s.first_error)
    return oracle_first_error(s.replace(first_error=moved))


def shuffled_blame(s: Signals, *, prefix: float = 0.0, rest: float = 1.0) -> TokenCredit:
    """A_t is that of `quoted_blame` with the places of the quoted numbers exchanged between failures (our choice).

    A failure is blamed from the place on, relative to its length, that another failure's critique quotes. The same failures are
    marked, and as often early or late, so that the difference to `quoted_blame` is due to the match of place and failure.

    Args:
      s: advantage, reward [N], mask [N, T], quoted [N, 2] and noise [N] are read.
      prefix, rest: as in `quoted_blame`.
    """
    size = s.quoted[:, 1] - s.quoted[:, 0]
    room = s.mask.sum(axis=1) - size
    # The failures whose credit has a place; a row that is not trained on has no token.
    marked = (s.reward < 1) & (size > 0) & (room >= 0) & ((s.advantage != 0) | (prefix != 0))
    place = s.quoted[:, 0] / jnp.maximum(room, 1)
    # The marked failures come first, in a random order. Each takes the place of the next one, and the last that of the first.
    order = jnp.argsort(jnp.where(marked, s.noise, jnp.inf))
    following = jnp.roll(order, -1).at[marked.sum() - 1].set(order[0])
    start = jnp.round(place.at[order].set(place[following]) * room).astype(size.dtype)
    exchanged = jnp.where(marked[:, None], jnp.stack([start, start + size], axis=1), s.quoted)
    return quoted_blame(s.replace(quoted=exchanged), prefix=prefix, rest=rest)


RULES = (
    Rule("scale_failures", scale_failures, keeps_sign=True),
    Rule("random_step", random_step, keeps_sign=True),
    Rule("shuffled_blame", shuffled_blame, needs_teacher, context="self_reflection", reads_gap=False, quotes=True),
    Rule("drop_failures", drop_failures, keeps_sign=True),
)
