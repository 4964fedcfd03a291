"""RLSD: every token's credit is scaled by how much likelier it is under a teacher that knows the answer, within a band."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amrsd_jax.credit.base import Hyper, Rule, anneal, annealed_out, mean
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share

_LARGEST_GAP = 20.0  # nats: exp of more would overflow before the band is applied


def rlsd(s: Signals, *, lam: Share = 0.5, eps_w: float = 0.2, decay_steps: int = 50) -> TokenCredit:
    """A_t = A [(1 - lam_eff) + lam_eff clip(exp(sign(A) d), 1 - eps_w, 1 + eps_w)], d = l_T - l_S (arXiv 2604.03128).

    The form is that of the authors' code; lam annealed linearly from 0.5 to 0 over 50 steps, eps_w, and a teacher refreshed
    every 10 steps are the paper's. The authors recompute l_S at every update; here it is computed once, at the beginning of
    the step.

    Args:
      s: step, advantage [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      lam: share of the band in the weight at step 0.
      eps_w: half width of the band.
      decay_steps: step from which the rule is GRPO; 0 never decays.
    """
    share = lam * anneal(s.step, decay_steps)
    weight = 1 + share * (band(s.advantage, s.gap, eps_w) - 1)  # exactly 1 where d = 0
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask), "lam": share})


def band(advantage: Float[Array, " N"], gap: Float[Array, "N T"], eps_w: float) -> Float[Array, "N T"]:
    """Returns clip(exp(sign(A) d), 1 - eps_w, 1 + eps_w)."""
    return jnp.clip(signed_ratio(advantage, gap), 1 - eps_w, 1 + eps_w)


def signed_ratio(advantage: Float[Array, " N"], gap: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """Returns exp(sign(A) d), finite for any gap."""
    return jnp.exp(jnp.minimum(jnp.sign(advantage)[:, None] * gap, _LARGEST_GAP))


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0, while the band has a share."""
    acts = hyper.lam * hyper.eps_w != 0 and not annealed_out(s.step, hyper.decay_steps)
    return (s.advantage != 0) & acts


RULE = Rule("rlsd", rlsd, needs_teacher, context="answer", teacher="snapshot", neutral=True, keeps_sign=True)
