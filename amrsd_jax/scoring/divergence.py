"""Divergences between the distributions of teacher and student at a token, over the vocabulary or its top entries."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from pydantic import Field

from amrsd_jax.sections import Natural, NonNegative, Positive, Section, Share

_ABSENT = -1e30  # log of a mass that is 0; finite, so that 0 * log 0 is 0


class Divergence(Section):
    """The divergence that a rule distils with, and its weight. `config.distill` replaces fields of the rule's own.

    At alpha = 0 it is KL(T || S), at 1 KL(S || T), between them (1 - alpha) KL(S || M) + alpha KL(T || M) with
    M = (1 - alpha) S + alpha T.
    """

    coefficient: Positive = Field(1.0, description="weight in the loss")
    alpha: Share = Field(
        1.0, description="0: forward KL, 1: reverse KL, between them a generalised Jensen-Shannon divergence"
    )
    top_k: Natural = Field(0, description="entries of the support; all others are one tail bucket; 0: all entries")
    support: Literal["student", "teacher", "union"] = Field(
        "student", description="distribution that top_k is taken from"
    )
    entry_clip: NonNegative = Field(0.0, description="upper bound of each entry's contribution, nats; 0: none")
    importance_cap: NonNegative = Field(0.0, description="bound of a token's weight pi / pi_old; 0: no weight")


def divergence(
    student: Float[Array, "*n V"], teacher: Float[Array, "*n V"], spec: Divergence
) -> tuple[Float[Array, "*n"], dict[str, Float[Array, "*n"]]]:
    """Returns the divergence per token, in nats, differentiable in the student's logits only.

    The forms are SDPO's (arXiv 2601.20802, the authors' code); OPSD's forward KL (2601.18734) and SDPG's reverse KL
    (2606.04036) are special cases.

    Args:
      student, teacher: logits.
      spec: the form; `coefficient` and `importance_cap` are not read.

    Returns:
      value per token; and with `top_k`, per token, `covered`, the student's mass on the support, and `overlap`, the entries
      that the two top_k sets have in common as a share of the larger set. Entries tied with the last of the top_k are included.
    """
    teacher = jax.lax.stop_gradient(teacher)
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    if not spec.top_k or spec.top_k >= s.shape[-1]:
        return jnp.sum(_entries(s, t, spec), axis=-1), {}
    tops = {"student": _top(student, spec.top_k), "teacher": _top(teacher, spec.top_k)}
    common, larger = tops["student"] & tops["teacher"], jnp.maximum(*(jnp.sum(top, axis=-1) for top in tops.values()))
    inside = tops["student"] | tops["teacher"] if spec.support == "union" else tops[spec.support]
    inner = jnp.sum(jnp.where(inside, _entries(s, t, spec), 0.0), axis=-1)
    tail = _entries(_outside(s, inside), _outside(t, inside), spec)
    metrics = {
        "covered": jnp.sum(jnp.where(inside, jnp.exp(s), 0.0), axis=-1),
        "overlap": jnp.sum(common, axis=-1) / larger,
    }
    return inner + tail, jax.lax.stop_gradient(metrics)


def _entries(s: Float[Array, "..."], t: Float[Array, "..."], spec: Divergence) -> Float[Array, "..."]:
    """Returns each entry's contribution to the divergence, from log-probabilities."""
    a = spec.alpha
    if a == 0:
        terms = jnp.exp(t) * (t - s)
    elif a == 1:
        terms = jnp.exp(s) * (s - t)
    else:
        m = jnp.logaddexp(jnp.log1p(-a) + s, jnp.log(a) + t)
        terms = (1 - a) * jnp.exp(s) * (s - m) + a * jnp.exp(t) * (t - m)
    return jnp.minimum(terms, spec.entry_clip) if spec.entry_clip else terms


def _top(logits: Float[Array, "*n V"], k: int) -> Bool[Array, "*n V"]:
    """Returns which entries are among the k largest.

    It reads logits: XLA may compute log-probabilities twice and round them differently, and the k-th would then be left out.
    """
    logits = jax.lax.stop_gradient(logits)
    return logits >= jax.lax.top_k(logits, k)[0][..., -1:]


def _outside(logprobs: Float[Array, "*n V"], inside: Bool[Array, "*n V"]) -> Float[Array, "*n"]:
    """Returns the log of the mass outside the support."""
    return jax.nn.logsumexp(jnp.where(inside, _ABSENT, logprobs), axis=-1)
