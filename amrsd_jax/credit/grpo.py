"""GRPO: every token of a response gets the response's advantage."""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from amrsd_jax.credit.base import Rule, no_rows


def grpo(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
):
    """A_t = A (arXiv 2402.03300, outcome supervision). The teacher is not read.

    Args:
      advantage: [N], from `group_advantage`.
      logp_student, logp_teacher: [N, T], ignored.
      mask: 1 on tokens that count [N, T].
      step: ignored.
    """
    del logp_student, logp_teacher, step
    return jnp.broadcast_to(advantage[:, None], mask.shape) * mask, {}


RULE = Rule("grpo", grpo, no_rows, context="none", teacher="policy")
