"""RLCSD: credit moves towards tokens that are likelier given a correct peer's solution than given wrong peers' solutions."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.credit.contrast import contrast
from amrsd_jax.records import Signals, TokenCredit


def rlcsd(s: Signals, *, tau: float = 0.02, lam: float = 0.5, delta: float = 0.02, eta: float = 1.0) -> TokenCredit:
    """A_t = A + m u, with u = lam tanh(e / tau), m = 1[|u| > delta], e the contrast of peers (arXiv 2606.11709).

    A_t is clamped so that it keeps the sign of A, and is 0 where A = 0. The loss is the mean over modulated tokens (m = 1)
    plus eta times the mean over the others. Under the reduction `token_mean` this is a multiplication of each kind's credit
    by (all tokens) / (its tokens), counted over the step's rows. Form and defaults are those of the authors' code.

    Args:
      s: advantage [N], mask [N, T] and the teacher's log-probabilities given a correct peer (teacher_logprobs [N, T]) and
        given each of K wrong peers (negative_logprobs [K, N, T], has_negative [K, N]) are read.
      tau: nats at which the contrast saturates.
      lam: largest modulation.
      delta: modulation up to which a token is left alone.
      eta: weight of the tokens that are left alone.
    """
    shift = lam * jnp.tanh(contrast(s) / tau)
    base = s.sequence_advantage
    modulated = (jnp.abs(shift) > delta) & (base != 0) & (s.mask > 0)
    clamped = jnp.where(base > 0, jnp.maximum(base + shift, 0), jnp.minimum(base + shift, 0))
    tokens, count = s.mask.sum(), modulated.sum()
    weight = jnp.where(
        modulated,
        tokens / jnp.maximum(count, 1),
        jnp.where(count > 0, eta * tokens / jnp.maximum(tokens - count, 1), 1.0),
    )
    credit = jnp.where(modulated, clamped, base) * weight * s.mask
    return TokenCredit(credit, {"modulated": mean(modulated.astype(s.mask.dtype), s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0, if the modulation can exceed delta."""
    return (s.advantage != 0) & (hyper.lam > hyper.delta)


RULE = Rule(
    "rlcsd",
    rlcsd,
    needs_teacher,
    context="peer_solution",
    teacher="snapshot",
    negatives="wrong_peers",
    negative_count=4,
    neutral=True,
    keeps_sign=True,
)
