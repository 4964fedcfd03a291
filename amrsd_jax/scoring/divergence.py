"""Divergences between the distributions of teacher and student at a token, over the vocabulary or its top entries."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SUPPORTS = ("student", "teacher", "union")
_ABSENT = -1e30  # log of a mass that is 0; finite, so that 0 * log 0 is 0


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Which divergence a rule distils with, and how much of it. None in `config.distill` keeps the rule's own.

    Attributes:
      coefficient: its weight in the loss.
      alpha: 0 is KL(T || S), 1 is KL(S || T), between them (1 - alpha) KL(S || M) + alpha KL(T || M) with
        M = (1 - alpha) S + alpha T.
      top_k: entries that are told apart, the rest being one tail bucket; 0 tells all apart.
      support: whose top_k entries: "student", "teacher", or the "union" of both.
      entry_clip: upper bound of each entry's contribution, nats; 0 is none.
      importance_cap: bound of the detached weight pi / pi_old of a token; 0 leaves the weight out.
    """

    coefficient: float = 1.0
    alpha: float = 1.0
    top_k: int = 0
    support: str = "student"
    entry_clip: float = 0.0
    importance_cap: float = 0.0


def divergence(
    student: Float[Array, "*n V"], teacher: Float[Array, "*n V"], spec: Divergence
) -> tuple[Float[Array, "*n"], dict[str, Float[Array, "*n"]]]:
    """Divergence per token, in nats, differentiable in the student's logits only.

    The forms are SDPO's (arXiv 2601.20802, the authors' code), which contain OPSD's forward KL (2601.18734) and SDPG's
    reverse KL (2606.04036).

    Returns:
      value per token; with `top_k` also the student's mass on the support and the share of the two top_k sets that is
      common. Entries tied with the last of the top_k are in.
    """
    teacher = jax.lax.stop_gradient(teacher)
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    if not spec.top_k or spec.top_k >= s.shape[-1]:
        return jnp.sum(_entries(s, t, spec), axis=-1), {}
    tops = {"student": _top(s, spec.top_k), "teacher": _top(t, spec.top_k)}
    common = tops["student"] & tops["teacher"]
    inside = tops["student"] | tops["teacher"] if spec.support == "union" else tops[spec.support]
    told_apart = jnp.sum(jnp.where(inside, _entries(s, t, spec), 0.0), axis=-1)
    tail = _entries(_outside(s, inside), _outside(t, inside), spec)
    monitors = {
        "covered": jnp.sum(jnp.where(inside, jnp.exp(s), 0.0), axis=-1),
        "overlap": jnp.sum(common, axis=-1) / spec.top_k,
    }
    return told_apart + tail, jax.lax.stop_gradient(monitors)


def _entries(s: Float[Array, "..."], t: Float[Array, "..."], spec: Divergence) -> Float[Array, "..."]:
    """Each entry's contribution, from log-masses."""
    a = spec.alpha
    if a == 0:
        terms = jnp.exp(t) * (t - s)
    elif a == 1:
        terms = jnp.exp(s) * (s - t)
    else:
        m = jnp.logaddexp(jnp.log1p(-a) + s, jnp.log(a) + t)
        terms = (1 - a) * jnp.exp(s) * (s - m) + a * jnp.exp(t) * (t - m)
    return jnp.minimum(terms, spec.entry_clip) if spec.entry_clip else terms


def _top(logp: Float[Array, "*n V"], k: int) -> Bool[Array, "*n V"]:
    logp = jax.lax.stop_gradient(logp)
    return logp >= jax.lax.top_k(logp, k)[0][..., -1:]


def _outside(logp: Float[Array, "*n V"], inside: Bool[Array, "*n V"]) -> Float[Array, "*n"]:
    """Log of the mass that is not in the support."""
    return jax.nn.logsumexp(jnp.where(inside, _ABSENT, logp), axis=-1)
