"""Quoted prefix, a rule of our own: the part of a failure before the number that its critique quotes is rewarded."""

import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, inside
from amrsd_jax.credit.prefix_credit import reward_prefix
from amrsd_jax.records import Signals, TokenCredit


def quoted_prefix(s: Signals, *, prefix: float = 1.0, rest: float = 0.0) -> TokenCredit:
    """A_t is that of `prefix_credit`, with the number that the critique quotes in place of the first disputed token (our choice).

    A critique such as `14 + 4 is not 20` names the place of the error in words. No teacher scores the answer. A failure without
    a quoted number keeps A. Why not the teacher's gap: docs/findings.md.

    Args:
      s: advantage, reward [N], mask [N, T] and quoted [N, 2] are read.
      prefix: advantage of the tokens before the number.
      rest: share of A that the tokens from the number on keep.
    """
    return reward_prefix(s, inside(s, s.quoted), prefix=prefix, rest=rest)


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns all failures, also those of groups without a success: they need a critique."""
    return s.reward < 1


RULE = Rule("quoted_prefix", quoted_prefix, needs_teacher, context="self_reflection", reads_gap=False, quotes=True)
