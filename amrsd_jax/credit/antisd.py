"""AntiSD: credit is taken from what a teacher that knows a solution would do anyway, while its entropy holds up."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean

_WARMUP = 5  # steps whose median entropies make the gate's baseline


def antisd(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    scored: Bool[Array, " N"],
    entropy_teacher: Float[Array, "N T"],
    memory: Float[Array, " M"],
    lam: float = 0.5,
    low: float = 0.93,
):
    """A_t = A - g lam phi(d), phi(d) = (softplus(d) - log 2) / 2, d = l_T - l_S (arXiv 2605.11609).

    The gate g goes on when the median entropy of the teacher is at least that of the warm-up (5 steps), and off when it falls
    below 0.93 of it; between the two it stays as it is. Form, lam and the gate are the paper's. That the gate is off during
    the warm-up, and that its baseline is the median of the five steps' medians, is our choice.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      scored: rows that have a teacher pass [N].
      entropy_teacher: nats [N, T].
      memory: medians of the warm-up so far (5 places), how many there are, and the gate [7].
      lam: strength while the gate is on.
      low: share of the baseline below which the gate goes off.
    """
    del step
    counted = (mask > 0) & scored[:, None]
    median = jnp.nanmedian(jnp.where(counted, entropy_teacher, jnp.nan))
    gate, memory = _gate(jnp.where(counted.any(), median, jnp.nan), memory, low)
    gap = jax.lax.stop_gradient(logp_teacher - logp_student)
    phi = (jax.nn.softplus(gap) - jax.nn.softplus(0.0)) / 2
    metrics = {"gate": gate, "phi": mean(phi, mask), "memory": memory}
    return (advantage[:, None] - gate * lam * phi) * mask, metrics


def _gate(
    median: Float[Array, ""], memory: Float[Array, " M"], low: float
) -> tuple[Float[Array, ""], Float[Array, " M"]]:
    """The gate after one more step, and what is remembered. A step without a median changes nothing."""
    medians, count, gate = memory[:_WARMUP], memory[_WARMUP], memory[_WARMUP + 1]
    warm = count < _WARMUP
    baseline = jnp.median(medians)
    switched = jnp.where(median >= baseline, 1.0, jnp.where(median < low * baseline, 0.0, gate))
    gate = jnp.where(warm, 0.0, switched)
    medians = jnp.where(warm & (jnp.arange(_WARMUP) == count), median, medians)
    updated = jnp.concatenate([medians, jnp.stack([jnp.where(warm, count + 1, count), gate])])
    updated = jnp.where(jnp.isnan(median), memory, updated)
    return updated[-1], updated


def needs(advantage, reward, step, *, lam=0.5, low=0.93) -> Bool[np.ndarray, " N"]:
    """Every row: phi acts where A = 0 too, and the gate watches the teacher even while it is off."""
    return np.full(len(advantage), lam != 0)


RULE = Rule(
    "antisd",
    antisd,
    needs,
    context="feedback+peer_solution,feedback+reference_solution",
    teacher="policy",
    memory=(0.0,) * (_WARMUP + 2),
)
