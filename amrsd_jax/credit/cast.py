"""CAST: a teacher that knows no answer changes the credit of single tokens, and its sign where the two disagree most."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule, all_rows, mean
from amrsd_jax.credit.rlsd import signed_ratio
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def cast(
    s: Signals,
    *,
    lam: Share = 1.0,
    base: float = 1.0,
    outer: float = 0.2,
    inner: float = 0.05,
    flip: float = 1.0,
    limit: float = 1.2,
) -> TokenCredit:
    """A_t = clip(+-B (1 + lam (w_t - 1)), -limit, limit), where B is A, or +-base where A = 0 (arXiv 2606.00172).

        w_t = clip(exp(sign(B) d), 1 - outer, 1 + inner) where B > 0, clip(exp(sign(B) d), 1 - inner, 1 + outer) where B < 0

    d = l_T - l_S. In groups of equal rewards B is `base` if they are right and -`base` if wrong. From published notes on the
    paper: this form, the bounds 0.8 to 1.05 and 0.95 to 1.2, base 1, limit 1.2, that the teacher sees the question alone, that
    nothing is annealed, and that tokens which the teacher disfavours on a success, or favours on a failure, may get the opposite
    sign. Our choice: a token gets it, times `flip`, where exp(sign(B) d) is below its band; lam; and a teacher refreshed every
    10 steps, since the policy itself would have no gap.

    Args:
      s: advantage, reward [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      lam: share of the band in the weight.
      base: size of B where A = 0.
      outer, inner: the band's width on the side that presses a token down, and on the other.
      flip: size of a turned credit, relative to the unturned one; 0 gives such tokens no credit.
      limit: largest size of a token's credit.
    """
    flat = jnp.where(s.reward >= 1, base, -base)
    b = jnp.where(s.advantage == 0, flat, s.advantage)[:, None]
    ratio = signed_ratio(b[:, 0], s.gap)
    low = jnp.where(b > 0, 1 - outer, 1 - inner)
    high = jnp.where(b > 0, 1 + inner, 1 + outer)
    shaped = b * (1 + lam * (jnp.clip(ratio, low, high) - 1))
    turned = ratio < low
    credit = jnp.clip(jnp.where(turned, -flip * shaped, shaped), -limit, limit)
    return TokenCredit(credit * s.mask, {"turned": mean(turned.astype(s.mask.dtype), s.mask)})


RULE = Rule("cast", cast, all_rows, context="question", teacher="snapshot")
