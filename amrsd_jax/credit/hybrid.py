"""Hybrid: the teacher's gap is added to the reward's advantage."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean


def hybrid(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    coef: float = 1.0,
):
    """A_t = A + coef (l_T - l_S): on-policy distillation beside the reward, as public code bases combine them.

    The coefficient is theirs; which context the teacher sees is our choice (a correct peer).

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either. Rows without a teacher pass have
        equal values and keep A.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      coef: weight of the gap, per nat.
    """
    del step
    gap = jax.lax.stop_gradient(logp_teacher - logp_student)
    return (advantage[:, None] + coef * gap) * mask, {"added": mean(coef * gap, mask)}


def needs(advantage, reward, step, *, coef=1.0) -> Bool[np.ndarray, " N"]:
    """Every row: the gap acts where A = 0 too."""
    return np.full(len(advantage), coef != 0)


RULE = Rule("hybrid", hybrid, needs, context="peer_solution", teacher="policy")
