"""RLRT: on successes, credit goes to what the student found and a teacher that saw a peer's solution would not have done."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.credit.rlsd import band


def rlrt(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward: Float[Array, " N"],
    lam: float = 0.5,
    eps_w: float = 1.0,
):
    """RLSD's weight with -d in place of d, on rows with reward 1; the others keep A (arXiv 2605.10781, second-hand).

    eps_w is 1.0 for base models; 0.5 for instruct and 0.2 for thinking models (second-hand). Nothing public anneals lam.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      reward: verifier's score [N].
      lam: share of the band in the weight.
      eps_w: half width of the band.
    """
    del step
    success = (reward >= 1)[:, None]
    weight = jnp.where(success, 1 + lam * (band(advantage, logp_student - logp_teacher, eps_w) - 1), 1.0)
    return advantage[:, None] * weight * mask, {"weight": mean(weight, mask)}


def needs(advantage, reward, step, *, lam=0.5, eps_w=1.0) -> Bool[np.ndarray, " N"]:
    """Successes with A != 0."""
    return (np.asarray(advantage) != 0) & (np.asarray(reward) >= 1) & (lam * eps_w != 0)


RULE = Rule("rlrt", rlrt, needs, context="peer_solution", teacher="policy")
