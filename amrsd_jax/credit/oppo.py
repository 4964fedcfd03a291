"""OPPO: the teacher's log-ratios add up to a belief in success, and a token's credit is how much it changes the belief."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit


def oppo(s: Signals, *, kappa: float = 5.0, coef: float = 1.0) -> TokenCredit:
    """A_t = coef (V_{t+1} - V_t) where that has the sign of A, else 0 (arXiv 2605.21851).

        V_t = sigmoid(logit V_0 + sum_{u<t} d_u)

    d = clip(l_T - l_S, -kappa, kappa) is Bayes' factor of a token for success, with the answer in the teacher's prompt; so the
    V_t are beliefs, and their changes over a whole row sum to V_T - V_0. Recursion, belief and d are the paper's, read in
    published notes on it. They also say that evidence is clipped and that directions are anchored, so that no step of a failure
    is reinforced, but not how: dropping changes of the opposite sign, kappa, V_0 as the group's share of right answers and coef
    are our choice. The paper's variant with a stronger teacher divides by that teacher's own probability without the answer.

    Args:
      s: advantage, group_right [N], group, mask, student_logprobs and teacher_logprobs [N, T] are read.
      kappa: nats at which a token's evidence is clipped.
      coef: credit of a belief that changes from 0 to 1.
    """
    least = 0.5 / s.group
    prior = jnp.clip(s.group_right / s.group, least, 1 - least)[:, None]
    evidence = jnp.where(s.mask > 0, jnp.clip(s.gap, -kappa, kappa), 0.0)
    after = jnp.log(prior / (1 - prior)) + jnp.cumsum(evidence, axis=1)
    change = jax.nn.sigmoid(after) - jax.nn.sigmoid(after - evidence)
    anchored = change * jnp.sign(s.sequence_advantage) > 0
    credit = jnp.where(anchored, coef * change, 0.0) * s.mask
    return TokenCredit(credit, {"anchored": mean(anchored.astype(s.mask.dtype), s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0."""
    return (s.advantage != 0) & (hyper.coef * hyper.kappa != 0)


RULE = Rule("oppo", oppo, needs_teacher, context="answer", keeps_sign=True)
