"""RLRT: on successes, credit goes to tokens that a teacher with a peer's solution in view would have chosen less often."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.credit.rlsd import band
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def rlrt(s: Signals, *, lam: Share = 0.5, eps_w: float = 1.0) -> TokenCredit:
    """A_t is RLSD's with -d in place of d where the reward is 1, A elsewhere (arXiv 2605.10781, as quoted by others).

    eps_w is 1.0 for base models, 0.5 for instruct models and 0.2 for thinking models (as quoted by others). No public source
    anneals lam.

    Args:
      s: advantage, reward [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      lam: share of the band in the weight.
      eps_w: half width of the band.
    """
    success = (s.reward >= 1)[:, None]
    weight = jnp.where(success, 1 + lam * (band(s.advantage, -s.gap, eps_w) - 1), 1.0)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the successes with A != 0."""
    return (s.advantage != 0) & (s.reward >= 1) & (hyper.lam * hyper.eps_w != 0)


RULE = Rule("rlrt", rlrt, needs_teacher, context="peer_solution", neutral=True, keeps_sign=True)
