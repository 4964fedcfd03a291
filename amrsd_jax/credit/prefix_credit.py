"""Prefix credit, a rule of our own: the part of a failure before the first disputed token is rewarded."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.credit.masked_blame import dispute
from amrsd_jax.records import Signals, TokenCredit


def prefix_credit(s: Signals, *, tau: float = 0.2, prefix: float = 1.0, rest: float = 0.0) -> TokenCredit:
    """On failures A_t = prefix before the first disputed token (l_T - l_S < -tau) and rest A from it on; successes keep A.

    Our choice throughout. Failures of groups without a success, where A = 0, get credit too. A failure without a disputed
    token keeps its advantage.

    Args:
      s: advantage, reward [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      tau: nats that a disputed token is less likely under the teacher.
      prefix: advantage of the tokens before the first disputed one.
      rest: share of A that the tokens from the first disputed one on keep.
    """
    return reward_prefix(s, dispute(s, tau), prefix=prefix, rest=rest)


def reward_prefix(s: Signals, wrong: Bool[Array, "N T"], *, prefix: float, rest: float) -> TokenCredit:
    """Returns the credit of `prefix_credit` for any marking of wrong tokens."""
    failed = (s.reward < 1) & (s.mask.sum(axis=1) > 0)
    marked = (failed & wrong.any(axis=1))[:, None]
    before = jnp.cumsum(wrong, axis=1) == 0
    base = s.sequence_advantage
    credit = jnp.where(marked, jnp.where(before, prefix, rest * base), base) * s.mask
    metrics = {
        "paid": mean((marked & before).astype(credit.dtype), s.mask),
        "marked": marked.sum() / jnp.maximum(failed.sum(), 1),
    }
    return TokenCredit(credit, metrics)


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns all failures, also those of groups without a success."""
    return s.reward < 1


RULE = Rule("prefix_credit", prefix_credit, needs_teacher, context="self_reflection", neutral=True)
