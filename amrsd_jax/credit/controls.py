"""Controls of our own: any claim of better credit is measured against rules that merely shrink the blame of failures."""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from amrsd_jax.credit.base import Rule, no_rows


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


RULES = (
    Rule("scale_failures", scale_failures, no_rows, context="none", teacher="policy"),
    Rule("drop_failures", drop_failures, no_rows, context="none", teacher="policy"),
)
