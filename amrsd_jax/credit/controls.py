"""Controls of our own: better credit is claimed against rules that merely shrink the blame of failures, or misplace it."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, ScalarLike

from amrsd_jax.credit.base import Rule, no_rows
from amrsd_jax.credit.oracle import oracle_first_error


def scale_failures(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    scale: float = 1 / 9,
):
    """A_t = scale A where A < 0, A elsewhere (our choice; a ninth is the pilot's).

    Args:
      advantage: [N].
      logp_student, logp_teacher: [N, T], ignored.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      scale: share of the blame that is kept.
    """
    del logp_student, logp_teacher, step
    return (advantage * jnp.where(advantage < 0, scale, 1.0))[:, None] * mask, {}


def drop_failures(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
):
    """A_t = max(A, 0): only successes teach. Arguments as in `scale_failures`."""
    return scale_failures(advantage, logp_student, logp_teacher, mask, step=step, scale=0.0)


def random_step(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    first_error: Integer[Array, "N 2"],
    noise: Float[Array, " N"],
):
    """`oracle_first_error` in the wrong place: as many tokens as the first wrong step has, at a random position (our choice).

    Args:
      advantage: [N].
      logp_student, logp_teacher: [N, T], ignored.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      first_error: token indices [start, end) of the first wrong step, -1 where it is not known [N, 2].
      noise: uniform in [0, 1), drawn anew every step [N].
    """
    size = first_error[:, 1] - first_error[:, 0]
    start = jnp.floor(noise * (mask.sum(axis=1) - size + 1)).astype(size.dtype)
    moved = jnp.where(size[:, None] > 0, jnp.stack([start, start + size], axis=1), first_error)
    return oracle_first_error(advantage, logp_student, logp_teacher, mask, step=step, first_error=moved)


RULES = (
    Rule("scale_failures", scale_failures, no_rows, context="none", teacher="policy"),
    Rule("random_step", random_step, no_rows, context="none", teacher="policy"),
    Rule("drop_failures", drop_failures, no_rows, context="none", teacher="policy"),
)
