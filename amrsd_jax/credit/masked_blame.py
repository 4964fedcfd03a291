"""Masked blame, a rule of our own: a failure is blamed only where the critique-conditioned teacher disputes a token."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean


def masked_blame(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    tau: float = 0.2,
    floor: float = 0.0,
):
    """A < 0: A_t = A on disputed tokens (l_T - l_S < -tau), floor A on the others; A >= 0: A_t = A (our choice throughout).

    A failure in which nothing is disputed keeps its advantage: without a usable critique there is nothing to go by. A rule
    that can take weight away, where A (1 + Delta) can only add some.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      tau: nats below which a token is disputed.
      floor: share of the blame that undisputed tokens of a disputed row keep.
    """
    del step
    disputed = dispute(logp_student, logp_teacher, mask, tau)
    masked = (advantage < 0) & disputed.any(axis=1)
    weight = jnp.where(masked[:, None] & ~disputed, floor, 1.0)
    return advantage[:, None] * weight * mask, {"weight": mean(weight, mask)}


def dispute(logp_student, logp_teacher, mask, tau: float) -> Bool[Array, "N T"]:
    """Tokens that the teacher finds less likely by more than tau nats."""
    return (jax.lax.stop_gradient(logp_teacher - logp_student) < -tau) & (mask > 0)


def needs(advantage, reward, step, *, tau=0.2, floor=0.0) -> Bool[np.ndarray, " N"]:
    """Failures with A < 0."""
    return (np.asarray(advantage) < 0) & (floor != 1)


RULE = Rule("masked_blame", masked_blame, needs, context="self_reflection", teacher="policy")
