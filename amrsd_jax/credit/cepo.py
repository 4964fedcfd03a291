"""CEPO: RLSD's weight, with the contrast of the right answer and a wrong one in place of the gap to the student."""

from amrsd_jax.credit.base import Rule, anneal, mean
from amrsd_jax.credit.contrast import contrast
from amrsd_jax.credit.rlsd import band, needs_teacher
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def cepo(s: Signals, *, lam: Share = 0.5, eps_w: float = 0.5, decay_steps: int = 25) -> TokenCredit:
    """A_t = A [(1 - lam_eff) + lam_eff clip(exp(sign(A) (l_T+ - l_T-)), 1 - eps_w, 1 + eps_w)] (arXiv 2605.19436).

    The teacher, the policy itself, sees the answer (+) or the answer of the group's worst failure (-), in that failure's own
    row too; a group without a failure keeps A. All of this, and lam annealed linearly from 0.5 to 0 over 25 steps, are the
    authors' code; eps_w is their README's, one of their scripts has 0.2. A failure without an answer is passed over (our choice:
    the authors show the first 50 characters of its text). The likelihoods of several wrong answers are averaged.

    Args:
      s: step, advantage [N], mask [N, T] and the teacher's log-probabilities given the answer (teacher_logprobs [N, T]) and
        given each wrong answer (negative_logprobs [K, N, T], has_negative [K, N]) are read.
      lam: share of the band in the weight at step 0.
      eps_w: half width of the band.
      decay_steps: step from which the rule is GRPO; 0 never decays.
    """
    share = lam * anneal(s.step, decay_steps)
    weight = 1 + share * (band(s.advantage, contrast(s), eps_w) - 1)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask), "lam": share})


RULE = Rule(
    "cepo",
    cepo,
    needs_teacher,
    context="answer",
    negatives="wrong_answers",
    negative_count=1,
    neutral=True,
    keeps_sign=True,
)
