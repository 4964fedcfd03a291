"""The contrast of two contexts: how much likelier a token is given a right solution than given wrong ones."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from amrsd_jax.records import Signals


def contrast(s: Signals) -> Float[Array, "N T"]:
    """Returns e_t = l_T(positive) - log mean_k exp l_T(negative k); 0 in rows that lack either."""
    logprobs = jnp.where(s.has_negative[:, :, None], s.negative_logprobs, -jnp.inf)
    present = s.has_negative.sum(axis=0)[:, None]
    best = jnp.where(present > 0, logprobs.max(axis=0, initial=-jnp.inf), 0.0)
    average = jnp.exp(logprobs - best).sum(axis=0) / jnp.maximum(present, 1)
    mean = jnp.where(present > 0, best + jnp.log(jnp.where(present > 0, average, 1.0)), s.teacher_logprobs)
    return s.teacher_logprobs - mean
