"""High-entropy tokens: the policy learns only from the tokens at which it was most uncertain."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def entropy_tokens(s: Signals, *, share: Share = 0.2) -> TokenCredit:
    """A_t = A on the `share` of the step's tokens with the highest entropy, 0 elsewhere (arXiv 2506.01939, share 0.2).

    Tokens of groups with equal rewards count too; the paper's runs have none, because they sample such groups again, as DAPO.

    Args:
      s: advantage [N], mask and student_entropy [N, T] are read.
      share: share of the step's tokens that are trained on.
    """
    entropy = jnp.where(s.mask > 0, s.student_entropy, jnp.nan)
    chosen = (entropy >= jnp.nanquantile(entropy, 1 - share)).astype(s.mask.dtype)
    return TokenCredit(s.sequence_advantage * chosen * s.mask, {"trained": mean(chosen, s.mask)})


RULE = Rule("entropy_tokens", entropy_tokens, student=True, keeps_sign=True)
