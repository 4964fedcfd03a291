"""AMR-SD: tokens that a self-written reflection makes more (successes) or less (failures) likely get extra credit."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, anneal, annealed_out, mean


def amrsd(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    lam: float = 0.2,
    gamma: float = 0.1,
    tau: float = 0.2,
    kappa: float = 5.0,
    decay_steps: int = 50,
):
    """A_t = A (1 + Delta_t), with Delta_t >= 0 from the causal information gain I_t = l_T - l_S (arXiv 2605.18529).

        I^_t    = clip(I_t, -kappa, kappa)
        Delta_t = lam_eff relu(I^_t - tau) where A >= 0,  gamma_eff relu(-I^_t - tau) where A < 0
        lam_eff = lam max(0, 1 - step / decay_steps), gamma_eff likewise

    The form and lam, gamma, kappa, decay_steps are the paper's as two public surveys report it; tau is our choice.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either. Equal values (a row without a
        usable reflection) give Delta = 0.
      mask: 1 on tokens that count [N, T].
      step: training step, from 0.
      lam, gamma: strength on successes and on failures at step 0.
      tau: nats of gain below which a token is left alone.
      kappa: nats at which the gain is clipped.
      decay_steps: step from which the rule is GRPO; 0 never decays.

    Returns:
      token_advantage [N, T], 0 outside the mask; metrics.
    """
    gain = jnp.clip(jax.lax.stop_gradient(logp_teacher - logp_student), -kappa, kappa)
    remaining = anneal(step, decay_steps)
    success = (advantage >= 0)[:, None]
    delta = jnp.where(
        success,
        lam * remaining * jax.nn.relu(gain - tau),
        gamma * remaining * jax.nn.relu(-gain - tau),
    )
    metrics = {
        "delta": mean(delta, mask),
        "amplified": mean((delta > 0).astype(delta.dtype), mask),
        "lam": lam * remaining,
        "gamma": gamma * remaining,
    }
    return advantage[:, None] * (1 + delta) * mask, metrics


def needs(advantage, reward, step, *, lam=0.2, gamma=0.1, tau=0.2, kappa=5.0, decay_steps=50) -> Bool[np.ndarray, " N"]:
    """Rows whose Delta can differ from 0 and matter: A != 0, a strength that is not 0, before the annealing has ended."""
    if annealed_out(step, decay_steps) or tau >= kappa:
        return np.zeros(len(advantage), bool)
    return np.where(np.asarray(advantage) > 0, lam != 0, gamma != 0) & (np.asarray(advantage) != 0)


RULE = Rule("amrsd", amrsd, needs, context="self_reflection", teacher="policy")
