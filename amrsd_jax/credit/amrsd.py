"""AMR-SD: tokens that a self-written reflection makes more (successes) or less (failures) likely get extra credit."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, anneal, annealed_out, mean
from amrsd_jax.records import Signals, TokenCredit, Value


def amrsd(
    s: Signals,
    *,
    lam: float = 0.2,
    gamma: float = 0.1,
    tau: float = 0.2,
    kappa: float = 5.0,
    decay_steps: int = 50,
) -> TokenCredit:
    """A_t = A (1 + Delta_t), with Delta_t >= 0 from the causal information gain I_t = l_T - l_S (arXiv 2605.18529).

        I^_t    = clip(I_t, -kappa, kappa)
        Delta_t = lam_eff relu(I^_t - tau) where A >= 0,  gamma_eff relu(-I^_t - tau) where A < 0
        lam_eff = lam max(0, 1 - step / decay_steps), gamma_eff likewise

    The form and lam, gamma, kappa, decay_steps are the paper's as two public surveys report it; tau is our choice. A row
    without a usable reflection has no gain, so Delta = 0. So has a row whose advantage contradicts its verdict, as a penalty for
    length can make it: a hint praises where A < 0 would blame, and a critique blames where A > 0 would praise (our choice).

    Args:
      s: step, advantage, reward [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      lam, gamma: strength on successes and on failures at step 0.
      tau: nats of gain up to which a token is left alone.
      kappa: nats at which the gain is clipped.
      decay_steps: step from which the rule is GRPO; 0 never decays.
    """
    gain = jnp.clip(s.gap, -kappa, kappa)
    remaining = anneal(s.step, decay_steps)
    delta = jnp.where(
        s.sequence_advantage >= 0,
        lam * remaining * jax.nn.relu(gain - tau),
        gamma * remaining * jax.nn.relu(-gain - tau),
    )
    delta = jnp.where(contradicted(s)[:, None], 0.0, delta)
    metrics = {
        "delta": mean(delta, s.mask),
        "amplified": mean((delta > 0).astype(delta.dtype), s.mask),
        "lam": lam * remaining,
        "gamma": gamma * remaining,
    }
    return TokenCredit(s.sequence_advantage * (1 + delta) * s.mask, metrics)


def contradicted(s: Signals) -> Bool[Value, " N"]:
    """Returns the rows whose advantage contradicts their verdict: right answers with A < 0, wrong ones with A > 0."""
    right = s.reward >= 1
    return (right & (s.advantage < 0)) | (~right & (s.advantage > 0))


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0 whose Delta can differ from 0: their strength is not 0 and the annealing has not ended."""
    if annealed_out(s.step, hyper.decay_steps) or hyper.tau >= hyper.kappa:
        return np.zeros(len(s.advantage), bool)
    return np.where(s.advantage > 0, hyper.lam != 0, hyper.gamma != 0) & (s.advantage != 0) & ~contradicted(s)


RULE = Rule("amrsd", amrsd, needs_teacher, context="self_reflection", neutral=True, keeps_sign=True)
