"""Feedback alignment: every token is credited with what a frozen teacher, shown better steps, thinks of it."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean


def feedback_alignment(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    coef: float = 1.0,
):
    """A_t = coef (l_T - l_S): the sampled-token form of KL(S || T), without the reward (arXiv 2606.11173, second-hand).

    The context tells the method's arms apart: `critic_feedback`, a frozen critic's step-by-step repair of the attempt
    (StepAlignFB), or `reference_solution` (RefSol). Its third arm is GRPO. The distilled arms sample one rollout a prompt.
    The coefficient is our choice.

    Args:
      advantage: ignored [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      coef: credit per nat.
    """
    del advantage, step
    gap = jax.lax.stop_gradient(logp_teacher - logp_student)
    return coef * gap * mask, {"added": mean(coef * gap, mask)}


def needs(advantage, reward, step, *, coef=1.0) -> Bool[np.ndarray, " N"]:
    """Every row, whatever its reward."""
    return np.full(len(advantage), coef != 0)


RULE = Rule("feedback_alignment", feedback_alignment, needs, context="critic_feedback", teacher="initial")
