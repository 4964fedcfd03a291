"""CREDIT: a token is rewarded for being likelier under its own prompt than under other prompts, given the same feedback."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.credit.feedback_alignment import needs_teacher
from amrsd_jax.records import Signals, TokenCredit


def credit(s: Signals, *, lam: float = 0.1, coef: float = 1.0, reward_weight: float = 0.0) -> TokenCredit:
    """A_t = reward_weight A + coef s_t, s_t = l_T(y_t | x, c) - l_S(y_t) - lam mean_k l_T(y_t | x_k, c) (arXiv 2605.11613).

    The x_k are other prompts of the batch, with the same response and context. The sum over tokens of l_T - l_S is the
    pointwise mutual information of response and feedback; the baseline removes what the response would earn under any prompt.
    An audit of the paper gives the form (equation 8), lam = 0.1, one other prompt and the teacher's rate of 0.01
    (`configs/methods.py`); the paper itself was not read. It has this reward for every entry of the vocabulary, in a reverse KL
    or a Jensen-Shannon divergence over the teacher's likeliest tokens; that ours is of the sampled token alone is our choice, as
    are both weights and the context, SDPO's. A row without a context has s = 0; one without another prompt has s = l_T - l_S.

    Args:
      s: advantage [N], mask, student_logprobs, teacher_logprobs [N, T], and l_T under each of K other prompts
        (negative_logprobs [K, N, T], has_negative [K, N]) are read.
      lam: share of the baseline.
      coef: weight of the token reward, per nat.
      reward_weight: weight of A.
    """
    present = s.has_negative[:, :, None]
    baseline = jnp.sum(jnp.where(present, s.negative_logprobs, 0.0), axis=0) / jnp.maximum(present.sum(axis=0), 1)
    score = (s.gap - lam * baseline) * s.mask
    return TokenCredit(reward_weight * s.sequence_advantage * s.mask + coef * score, {"score": mean(score, s.mask)})


RULE = Rule(
    "credit",
    credit,
    needs_teacher,
    context="peer_solution",
    teacher="ema",
    negatives="other_prompts",
    negative_count=1,
)
