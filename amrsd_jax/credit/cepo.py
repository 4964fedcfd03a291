"""CEPO: RLSD's band around the contrast of a correct peer and wrong peers, in place of the gap to the student."""

import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, anneal, annealed_out, mean
from amrsd_jax.credit.contrast import contrast
from amrsd_jax.credit.rlsd import band


def cepo(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    logp_negative: Float[Array, "K N T"],
    has_negative: Bool[Array, "K N"],
    lam: float = 0.5,
    eps_w: float = 0.2,
    decay_steps: int = 25,
    k: int = 1,
):
    """A_t = A [(1 - lam_eff) + lam_eff clip(exp(sign(A) (l_T+ - l_T-)), 1 - eps_w, 1 + eps_w)] (arXiv 2605.19436, second-hand).

    lam annealed linearly from 0.5 to 0 over 25 steps is second-hand too; eps_w (RLSD's), one wrong peer and the teacher
    (the policy) are our choice. With several wrong peers their likelihoods are averaged.

    Args:
      advantage: [N].
      logp_student: ignored [N, T].
      logp_teacher: l_T+ given a correct peer [N, T], nats; no gradient flows into it.
      mask: 1 on tokens that count [N, T].
      step: training step, from 0.
      logp_negative, has_negative: l_T- given each of K wrong peers, and where there is one [K, N, T], [K, N].
      lam: share of the band in the weight at step 0.
      eps_w: half width of the band.
      decay_steps: step from which the rule is GRPO; 0 never decays.
      k: wrong peers per row at most.
    """
    del logp_student, k
    share = lam * anneal(step, decay_steps)
    weight = 1 + share * (band(advantage, contrast(logp_teacher, logp_negative, has_negative), eps_w) - 1)
    return advantage[:, None] * weight * mask, {"weight": mean(weight, mask), "lam": share}


def needs(advantage, reward, step, *, lam=0.5, eps_w=0.2, decay_steps=25, k=1) -> Bool[np.ndarray, " N"]:
    """Rows with A != 0, while the band has a share."""
    return (np.asarray(advantage) != 0) & (lam * eps_w != 0) & (not annealed_out(step, decay_steps))


RULE = Rule("cepo", cepo, needs, context="peer_solution", teacher="policy", negatives="wrong_peers")
