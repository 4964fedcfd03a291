"""GRPO: every token of a response gets the response's advantage."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule
from amrsd_jax.records import Signals, TokenCredit


def grpo(s: Signals) -> TokenCredit:
    """A_t = A (arXiv 2402.03300, outcome supervision)."""
    return TokenCredit(jnp.broadcast_to(s.sequence_advantage, s.mask.shape) * s.mask)


RULE = Rule("grpo", grpo, neutral=True, keeps_sign=True)
