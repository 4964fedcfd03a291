"""Hybrid: the teacher's gap is added to the reward's advantage."""

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.credit.feedback_alignment import needs_teacher
from amrsd_jax.records import Signals, TokenCredit


def hybrid(s: Signals, *, coef: float = 1.0) -> TokenCredit:
    """A_t = A + coef (l_T - l_S): reward plus on-policy distillation, as public code bases combine them.

    The coefficient is theirs; the context (a correct peer) is our choice. Rows without a teacher pass keep A.

    Args:
      s: advantage [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      coef: weight of the gap, per nat.
    """
    added = coef * s.gap
    return TokenCredit((s.sequence_advantage + added) * s.mask, {"added": mean(added, s.mask)})


RULE = Rule("hybrid", hybrid, needs_teacher, context="peer_solution", neutral=True)
