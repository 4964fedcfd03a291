"""Prefix credit, a rule of our own: the part of a failure before the first disputed token is paid, in dead groups too."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.credit.masked_blame import dispute


def prefix_credit(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward: Float[Array, " N"],
    tau: float = 0.2,
    prefix: float = 1.0,
    rest: float = 0.0,
):
    """On failures A_t = prefix before the first disputed token (l_T - l_S < -tau) and rest A from it on; successes keep A.

    Our choice throughout. Groups in which all failed, where A = 0, are paid too. A failure in which nothing is disputed
    keeps its advantage.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      reward: verifier's score [N]; below 1 is a failure.
      tau: nats below which a token is disputed.
      prefix: advantage of the tokens before the dispute.
      rest: share of A that the tokens from the dispute on keep.
    """
    del step
    disputed = dispute(logp_student, logp_teacher, mask, tau)
    return pay_prefix(advantage, reward, disputed, mask, prefix=prefix, rest=rest)


def pay_prefix(advantage, reward, wrong: Bool[Array, "N T"], mask, *, prefix: float, rest: float):
    """The rule for any mark of wrong tokens: failures with a mark are paid before the first one."""
    marked = ((reward < 1) & wrong.any(axis=1))[:, None]
    before = jnp.cumsum(wrong, axis=1) == 0
    base = advantage[:, None]
    credit = jnp.where(marked, jnp.where(before, prefix, rest * base), base) * mask
    return credit, {"paid": mean((marked & before).astype(credit.dtype), mask)}


def needs(advantage, reward, step, *, tau=0.2, prefix=1.0, rest=0.0) -> Bool[np.ndarray, " N"]:
    """All failures, those of dead groups included."""
    return np.asarray(reward) < 1


RULE = Rule("prefix_credit", prefix_credit, needs, context="self_reflection", teacher="policy")
