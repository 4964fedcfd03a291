"""Distilled RL: a teacher moves the credit of a success towards the tokens that it prefers, and leaves its mean weight at 1."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit


def distilled_rl(s: Signals, *, bound: float = math.log(3)) -> TokenCredit:
    """A > 0: A_t = A exp(d^_t - mean of d^ over the row), d^ = clip(l_T - l_S, -bound, bound); A <= 0: A_t = A.

    That is A times the ratio pi_T / pi_old, clipped to [1/3, 3], over its geometric mean in the row (arXiv 2607.17247, the
    authors' code). Their teacher is a larger model that sees the student's own prompt: `teacher.kind = external`,
    `external.workdir`, `credit.context = question`. That without another model the policy stands in for it, with a correct
    peer's solution in its prompt, is our choice.

    Args:
      s: advantage [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      bound: nats at which the log-ratio is clipped; log 3 is the authors'.
    """
    ratio = jnp.clip(s.gap, -bound, bound)
    length = jnp.maximum(s.mask.sum(axis=1, keepdims=True), 1)
    centre = jnp.sum(jnp.where(s.mask > 0, ratio, 0.0), axis=1, keepdims=True) / length
    weight = jnp.where(s.sequence_advantage > 0, jnp.exp(ratio - centre), 1.0)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A > 0."""
    return (s.advantage > 0) & (hyper.bound != 0)


RULE = Rule("distilled_rl", distilled_rl, needs_teacher, context="peer_solution", neutral=True, keeps_sign=True)
