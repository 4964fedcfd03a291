"""PBSD: credit grows where knowing the answer makes a token likelier on a success, or less likely on a failure."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share


def pbsd(s: Signals, *, delta: float = 1.0, bound: Share = 0.5) -> TokenCredit:
    """A_t = A (1 + sign(A) clip(tanh(d / delta), -bound, bound)), d = l_T - l_S (arXiv 2606.09348, as quoted by others).

    d is a token's part of the log of the posterior-to-prior ratio of the verified answer, by Bayes' rule. The weight's form is
    from a survey. The paper gives every turn of an agent one weight, from the sum of d over the turn, and drops weak evidence
    by a filter that we have not seen; here every token is a turn of its own, and none is dropped. That, delta and bound are our
    choice. The teacher is the policy with the answer in its prompt, as in the paper.

    Args:
      s: advantage [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      delta: nats of evidence at which the weight saturates; 0: its sign alone counts.
      bound: largest change of the weight.
    """
    scaled = jnp.tanh(s.gap / delta) if delta else jnp.sign(s.gap)
    weight = 1 + jnp.sign(s.sequence_advantage) * jnp.clip(scaled, -bound, bound)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0."""
    return (s.advantage != 0) & (hyper.bound != 0)


RULE = Rule("pbsd", pbsd, needs_teacher, context="answer", neutral=True, keeps_sign=True)
