"""Control rules of our own, which only shrink the blame of failures or misplace it: better credit must do better than these."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule
from amrsd_jax.credit.oracle import oracle_first_error
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


RULES = (
    Rule("scale_failures", scale_failures, keeps_sign=True),
    Rule("random_step", random_step, keeps_sign=True),
    Rule("drop_failures", drop_failures, keeps_sign=True),
)
