"""The contrast of two contexts: how much likelier a token is to a teacher shown a right solution than to one shown wrong ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_negative(
    logp_teacher: Float[Array, "N T"], logp_negative: Float[Array, "K N T"], has_negative: Bool[Array, "K N"]
) -> Float[Array, "N T"]:
    """log mean_k exp l_T under the negative contexts that a row has; l_T itself in rows that have none."""
    logp = jnp.where(has_negative[:, :, None], logp_negative, -jnp.inf)
    present = has_negative.sum(axis=0)[:, None]
    best = jnp.where(present > 0, logp.max(axis=0, initial=-jnp.inf), 0.0)
    average = jnp.exp(logp - best).sum(axis=0) / jnp.maximum(present, 1)
    return jnp.where(present > 0, best + jnp.log(jnp.where(present > 0, average, 1.0)), logp_teacher)


def contrast(
    logp_teacher: Float[Array, "N T"], logp_negative: Float[Array, "K N T"], has_negative: Bool[Array, "K N"]
) -> Float[Array, "N T"]:
    """e_t = l_T(positive) - log mean_k exp l_T(negative k), detached; 0 in rows that lack either."""
    return jax.lax.stop_gradient(logp_teacher - mean_negative(logp_teacher, logp_negative, has_negative))
