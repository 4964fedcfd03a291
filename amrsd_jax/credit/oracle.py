"""Oracle rules of our own, as upper bounds: they read the true first wrong step, which embedded tasks know."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule, inside, mean
from amrsd_jax.credit.prefix_credit import reward_prefix
from amrsd_jax.records import Signals, TokenCredit


def oracle_first_error(s: Signals) -> TokenCredit:
    """A < 0: A_t = A on the first wrong step, 0 elsewhere; A >= 0, or no known error: A_t = A (our choice).

    Args:
      s: advantage [N], mask [N, T] and first_error [N, 2] are read.
    """
    wrong = inside(s, s.first_error)
    weight = jnp.where(((s.advantage < 0) & wrong.any(axis=1))[:, None] & ~wrong, 0.0, 1.0)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask)})


def oracle_prefix(s: Signals, *, prefix: float = 1.0, rest: float = 0.0) -> TokenCredit:
    """A_t is that of `prefix_credit`, with the true first wrong step in place of the first disputed token (our choice).

    Args:
      s: advantage, reward [N], mask [N, T] and first_error [N, 2] are read.
      prefix: advantage of the tokens before the error.
      rest: share of A that the tokens from the error on keep.
    """
    return reward_prefix(s, inside(s, s.first_error), prefix=prefix, rest=rest)


RULES = (
    Rule("oracle_first_error", oracle_first_error, keeps_sign=True),
    Rule("oracle_prefix", oracle_prefix),
)
