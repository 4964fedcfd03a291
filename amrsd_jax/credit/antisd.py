"""AntiSD: credit is taken from tokens that a teacher with a solution in view would choose anyway, while its entropy holds."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import Share

_WARMUP = 5  # steps whose median entropies make the gate's baseline


def antisd(s: Signals, *, lam: float = 0.5, low: Share = 0.93) -> TokenCredit:
    """A_t = A - g lam phi(d), phi(d) = (softplus(d) - log 2) / 2, d = l_T - l_S (arXiv 2605.11609).

    The gate g is switched on when the teacher's median entropy is at least that of the warm-up (5 steps), and off when it is
    below `low` times that; between the two it keeps its value. Form, lam and the gate, off during the warm-up, are the paper's;
    that the warm-up's entropy is the median of the five steps' medians is our choice. Copies of the authors' code estimate
    otherwise: phi is standardised within a row and clipped, its weight follows the row's perplexity, and the gate is of the
    teacher's perplexity. That is not implemented.

    Args:
      s: advantage [N], mask, student_logprobs, teacher_logprobs, teacher_entropy [N, T], scored [N] are read, and memory
        [7]: the medians of the warm-up so far (5 places), how many there are, and the gate.
      lam: strength while the gate is on.
      low: share of the warm-up's entropy below which the gate is switched off.
    """
    counted = (s.mask > 0) & s.scored[:, None]
    median = jnp.nanmedian(jnp.where(counted, s.teacher_entropy, jnp.nan))
    gate, memory = _gate(jnp.where(counted.any(), median, jnp.nan), s.memory, low)
    phi = (jax.nn.softplus(s.gap) - jax.nn.softplus(0.0)) / 2
    credit = (s.sequence_advantage - gate * lam * phi) * s.mask
    return TokenCredit(credit, {"gate": gate, "phi": mean(phi, s.mask)}, memory)


def _gate(
    median: Float[Array, ""], memory: Float[Array, " M"], low: float
) -> tuple[Float[Array, ""], Float[Array, " M"]]:
    """Returns the gate and the memory after one more step. A step without a median changes neither."""
    medians, count, gate = memory[:_WARMUP], memory[_WARMUP], memory[_WARMUP + 1]
    warm = count < _WARMUP
    baseline = jnp.median(medians)
    switched = jnp.where(median >= baseline, 1.0, jnp.where(median < low * baseline, 0.0, gate))
    gate = jnp.where(warm, 0.0, switched)
    medians = jnp.where(warm & (jnp.arange(_WARMUP) == count), median, medians)
    updated = jnp.concatenate([medians, jnp.stack([jnp.where(warm, count + 1, count), gate])])
    updated = jnp.where(jnp.isnan(median), memory, updated)
    return updated[-1], updated


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns every row: phi acts where A = 0 too, and the gate needs the teacher's entropy even while it is off."""
    return np.full(len(s.advantage), hyper.lam != 0)


RULE = Rule(
    "antisd",
    antisd,
    needs_teacher,
    context="verdict+peer_solution,verdict+reference_solution",
    memory=(0.0,) * (_WARMUP + 2),
    neutral=True,
)
