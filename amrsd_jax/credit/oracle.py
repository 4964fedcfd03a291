"""Oracles, upper bounds of our own: credit from the true first wrong step, which embedded tasks know."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from amrsd_jax.credit.base import Rule, mean, no_rows
from amrsd_jax.credit.prefix_credit import pay_prefix


def oracle_first_error(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    first_error: Integer[Array, "N 2"],
):
    """A < 0: A_t = A on the first wrong step, 0 elsewhere; A >= 0, or no known error: A_t = A (our choice).

    Args:
      advantage: [N].
      logp_student, logp_teacher: [N, T], ignored.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      first_error: token indices [start, end) of the first wrong step, -1 where it is not known [N, 2].
    """
    del logp_student, logp_teacher, step
    wrong = _inside(first_error, mask)
    weight = jnp.where(((advantage < 0) & wrong.any(axis=1))[:, None] & ~wrong, 0.0, 1.0)
    return advantage[:, None] * weight * mask, {"weight": mean(weight, mask)}


def oracle_prefix(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward: Float[Array, " N"],
    first_error: Integer[Array, "N 2"],
    prefix: float = 1.0,
    rest: float = 0.0,
):
    """`prefix_credit` with the true first wrong step in place of the first dispute (our choice).

    Args:
      advantage: [N].
      logp_student, logp_teacher: [N, T], ignored.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      reward: verifier's score [N]; below 1 is a failure.
      first_error: token indices [start, end) of the first wrong step, -1 where it is not known [N, 2].
      prefix: advantage of the tokens before the error.
      rest: share of A that the tokens from the error on keep.
    """
    del logp_student, logp_teacher, step
    return pay_prefix(advantage, reward, _inside(first_error, mask), mask, prefix=prefix, rest=rest)


def _inside(first_error, mask) -> Bool[Array, "N T"]:
    place = jnp.arange(mask.shape[1])
    return (place >= first_error[:, :1]) & (place < first_error[:, 1:]) & (mask > 0)


RULES = (
    Rule("oracle_first_error", oracle_first_error, no_rows, context="none", teacher="policy"),
    Rule("oracle_prefix", oracle_prefix, no_rows, context="none", teacher="policy"),
)
