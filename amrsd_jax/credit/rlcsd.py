"""RLCSD: credit moves towards tokens that are likelier given a correct peer's solution than given wrong peers' solutions."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.credit.contrast import contrast
from amrsd_jax.records import Signals, TokenCredit


def rlcsd(s: Signals, *, tau: float = 0.02, lam: float = 0.5, delta: float = 0.02, eta: float = 1.0) -> TokenCredit:
    """A_t = A + m u, with u = lam tanh(e / tau), m = 1[|u| > delta], e the contrast of peers (arXiv 2606.11709).

    A_t is clamped so that it keeps the sign of A. Rows that lack a right or a wrong hint, whole groups of equal rewards among
    them, have no credit. Over the others the loss is the mean over tokens that are left alone plus eta times the mean over
    modulated tokens (m = 1). Under the reduction `token_mean`, which counts all rows, this is a multiplication of each kind's
    credit by (all tokens) / (its tokens), both of the step, also where it has several minibatches. Form and defaults are those
    of the authors' code, and so is that a failure without an answer is no hint, but there the hints are drawn at random; here
    they are the next siblings. That a row with A = 0, which rewards of 0 and 1 give in groups of equal rewards only, is left out
    whatever its hints is our choice.

    Args:
      s: advantage [N], mask [N, T] and the teacher's log-probabilities given a correct peer (teacher_logprobs [N, T]) and
        given each of K wrong peers (negative_logprobs [K, N, T], has_negative [K, N]) are read.
      tau: nats at which the contrast saturates.
      lam: largest modulation.
      delta: modulation up to which a token is left alone.
      eta: weight of the modulated tokens.
    """
    shift = lam * jnp.tanh(contrast(s) / tau)
    base = s.sequence_advantage
    both = s.scored & s.has_negative.any(axis=0) & (s.advantage != 0)
    counted = (s.mask > 0) & both[:, None]
    modulated = counted & (jnp.abs(shift) > delta)
    untouched = counted & ~modulated
    clamped = jnp.where(base > 0, jnp.maximum(base + shift, 0), jnp.minimum(base + shift, 0))
    tokens = s.mask.sum()
    credit = jnp.where(modulated, eta * clamped * tokens / jnp.maximum(modulated.sum(), 1), 0.0)
    credit += jnp.where(untouched, base * tokens / jnp.maximum(untouched.sum(), 1), 0.0)
    return TokenCredit(credit, {"modulated": mean(modulated.astype(s.mask.dtype), s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0: whether a row counts at all depends on its hints."""
    return s.advantage != 0


RULE = Rule(
    "rlcsd",
    rlcsd,
    needs_teacher,
    context="peer_solution",
    teacher="snapshot",
    negatives="wrong_peers",
    negative_count=4,
    keeps_sign=True,
)
