"""Quoted blame, a rule of our own: a failure is blamed from the number on that its critique quotes."""

import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, inside
from amrsd_jax.credit.prefix_credit import reward_prefix
from amrsd_jax.records import Signals, TokenCredit


def quoted_blame(s: Signals, *, prefix: float = 0.0, rest: float = 1.0) -> TokenCredit:
    """On failures A_t = prefix before the number that the critique quotes and rest A from it on; successes keep A (our choice).

    A critique such as `14 + 4 is not 20` names the place of the error in words. No teacher scores the answer. A failure without
    a quoted number keeps A. The beginning is spared and not rewarded, because a failure may be lost before its first false
    number. Why not the teacher's gap: docs/findings.md.

    Args:
      s: advantage, reward [N], mask [N, T] and quoted [N, 2] are read.
      prefix: advantage of the tokens before the number.
      rest: share of A that the tokens from the number on keep.
    """
    return reward_prefix(s, inside(s, s.quoted), prefix=prefix, rest=rest)


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the failures with A != 0. If `prefix` is not 0, it returns all failures, because each has credit then."""
    return (s.reward < 1) & ((s.advantage != 0) | (hyper.prefix != 0))


RULE = Rule("quoted_blame", quoted_blame, needs_teacher, context="self_reflection", reads_gap=False, quotes=True)
