"""Feedback alignment: a token's credit is its gain in log-probability under a frozen teacher that sees a corrected solution."""

import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit


def feedback_alignment(s: Signals, *, coef: float = 1.0) -> TokenCredit:
    """A_t = coef (l_T - l_S), the sampled-token form of KL(S || T), without the reward (arXiv 2606.11173, as quoted by others).

    The paper's variants differ in their context: `critic_feedback`, a frozen critic's step-by-step repair of the attempt
    (StepAlignFB), or `reference_solution` (RefSol). Both sample one rollout per prompt. Its third variant is GRPO. The paper
    analyses credit by l_T - l_S; the loss that it trains is quoted as OPSD's divergence over the vocabulary, so that this form
    is our choice, and so is the coefficient.

    Args:
      s: mask, student_logprobs and teacher_logprobs [N, T] are read.
      coef: credit per nat.
    """
    added = coef * s.gap
    return TokenCredit(added * s.mask, {"added": mean(added, s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns every row, whatever its reward, unless the teacher has no weight."""
    return np.full(len(s.advantage), hyper.coef != 0)


RULE = Rule("feedback_alignment", feedback_alignment, needs_teacher, context="critic_feedback", teacher="initial")
