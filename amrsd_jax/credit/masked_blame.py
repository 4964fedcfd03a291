"""Masked blame, a rule of our own: a failure is blamed only at the tokens that the critique-conditioned teacher disputes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def masked_blame(s: Signals, *, tau: float = 0.2, floor: Share = 0.0) -> TokenCredit:
    """A < 0: A_t = A on disputed tokens (l_T - l_S < -tau), floor A on the others; A >= 0: A_t = A (our choice throughout).

    A failure without a disputed token keeps its advantage, since it may have no usable critique; so does a right answer with
    A < 0, whose reflection is no critique. The rule can only remove weight, where A (1 + Delta) can only add it.

    Args:
      s: advantage, reward [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      tau: nats that a disputed token is less likely under the teacher.
      floor: share of the blame that undisputed tokens of a disputed row keep.
    """
    disputed = dispute(s, tau)
    masked = (s.advantage < 0) & (s.reward < 1) & disputed.any(axis=1)
    weight = jnp.where(masked[:, None] & ~disputed, floor, 1.0)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask)})


def dispute(s: Signals, tau: float) -> Bool[Array, "N T"]:
    """Returns the tokens that are less likely under the teacher by more than tau nats."""
    return (s.gap < -tau) & (s.mask > 0)


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the failures with A < 0, unless undisputed tokens keep the whole blame."""
    return (s.advantage < 0) & (s.reward < 1) & (hyper.floor != 1)


RULE = Rule("masked_blame", masked_blame, needs_teacher, context="self_reflection", neutral=True, keeps_sign=True)
