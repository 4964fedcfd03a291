"""Control rules of our own, which only shrink the blame of failures or misplace it: better credit must do better than these."""

import jax.numpy as jnp
from jaxtyping import Array, Integer

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
    return oracle_first_error(s.replace(first_error=_moved(s, s.first_error)))


def random_blame(s: Signals, *, prefix: float = 0.0, rest: float = 1.0) -> TokenCredit:
    """A_t is that of `quoted_blame` with the quoted number at a random place of the response (our choice).

    The same failures are marked, so that the difference to `quoted_blame` is due to the place.

    Args:
      s: advantage, reward [N], mask [N, T], quoted [N, 2] and noise [N] are read.
      prefix, rest: as in `quoted_blame`.
    """
    return quoted_blame(s.replace(quoted=_moved(s, s.quoted)), prefix=prefix, rest=rest)


def _moved(s: Signals, span: Integer[Array, "N 2"]) -> Integer[Array, "N 2"]:
    """Returns spans of the same lengths that begin at random tokens of their responses. An empty span is returned as it is."""
    size = span[:, 1] - span[:, 0]
    start = jnp.floor(s.noise * (s.mask.sum(axis=1) - size + 1)).astype(size.dtype)
    return jnp.where(size[:, None] > 0, jnp.stack([start, start + size], axis=1), span)


RULES = (
    Rule("scale_failures", scale_failures, keeps_sign=True),
    Rule("random_step", random_step, keeps_sign=True),
    Rule("random_blame", random_blame, needs_teacher, context="self_reflection", reads_gap=False, quotes=True),
    Rule("drop_failures", drop_failures, keeps_sign=True),
)
