"""RLSD: every token's credit is scaled by how much likelier a teacher that knows the answer finds it, within a band."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, anneal, annealed_out, mean

_LARGEST_GAP = 20.0  # nats: exp of more would overflow before the band is applied


def rlsd(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    lam: float = 0.5,
    eps_w: float = 0.2,
    decay_steps: int = 50,
):
    """A_t = A [(1 - lam_eff) + lam_eff clip(exp(sign(A) d), 1 - eps_w, 1 + eps_w)], d = l_T - l_S (arXiv 2604.03128).

    The rule is that of the authors' code; lam annealed linearly from 0.5 to 0 over 50 steps, eps_w and the teacher that is
    refreshed every 10 steps are the paper's. The authors recompute l_S at every update; here it is that of the policy that
    the step began with.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: training step, from 0.
      lam: share of the band in the weight at step 0.
      eps_w: half width of the band.
      decay_steps: step from which the rule is GRPO; 0 never decays.
    """
    share = lam * anneal(step, decay_steps)
    weight = 1 + share * (band(advantage, logp_teacher - logp_student, eps_w) - 1)  # exactly 1 where d = 0
    return advantage[:, None] * weight * mask, {"weight": mean(weight, mask), "lam": share}


def band(advantage: Float[Array, " N"], gap: Float[Array, "N T"], eps_w: float) -> Float[Array, "N T"]:
    """clip(exp(sign(A) d), 1 - eps_w, 1 + eps_w), detached."""
    signed = jnp.sign(advantage)[:, None] * jax.lax.stop_gradient(gap)
    return jnp.clip(jnp.exp(jnp.minimum(signed, _LARGEST_GAP)), 1 - eps_w, 1 + eps_w)


def needs(advantage, reward, step, *, lam=0.5, eps_w=0.2, decay_steps=50) -> Bool[np.ndarray, " N"]:
    """Rows with A != 0, while the band has a share."""
    if annealed_out(step, decay_steps) or lam == 0 or eps_w == 0:
        return np.zeros(len(advantage), bool)
    return np.asarray(advantage) != 0


RULE = Rule("rlsd", rlsd, needs, context="answer", teacher="snapshot")
