"""Losses per token, and the weights that average them, which differ between algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LARGEST_LOG_RATIO = 20.0  # nats: beyond it exp would overflow, and 0 * inf is not a number (our choice)


def reduction_weights(
    mask: Float[Array | np.ndarray, "N T"], mode: str, *, constant_length: int | None = None
) -> Float[Array | np.ndarray, "N T"]:
    """Returns the weight of every token; the loss is sum(weight * per-token loss), over all micro-batches and devices.

    Args:
      mask: 1 on tokens that count; the result is on the host or a device, as the mask is.
      mode: `sequence_mean` averages over the tokens of a row, then over the rows that have any (GRPO); `token_mean`
        over all tokens of the batch (DAPO); `constant` divides a row's sum by a constant length, then by N (Dr.GRPO).
      constant_length: that length.
    """
    lengths = mask.sum(axis=1, keepdims=True)
    if mode == "sequence_mean":
        return mask / lengths.clip(1) / (lengths > 0).sum(dtype=mask.dtype).clip(1)
    if mode == "token_mean":
        return mask / mask.sum().clip(1)
    return mask / (constant_length * mask.shape[0])


def log_ratio(
    logprobs: Float[Array, "N T"], old_logprobs: Float[Array, "N T"], mask: Float[Array, "N T"], level: str
) -> Float[Array, "N T"]:
    """Returns log(pi / pi_old) per `token`, or per `sequence` the mean over the row, at each of its tokens; nats.

    The gradient at a token is that token's own, also per `sequence`: GSPO-token (arXiv 2507.18071), s_t = sg[s] pi_t / sg[pi_t].
    With equal credit on all tokens of a row it is GSPO's.
    """
    ratio = logprobs - old_logprobs
    if level == "sequence":
        ratio = jnp.where(mask > 0, ratio, 0.0).sum(axis=1, keepdims=True) / jnp.maximum(
            mask.sum(axis=1, keepdims=True), 1
        )
        ratio = jax.lax.stop_gradient(ratio) + (logprobs - jax.lax.stop_gradient(logprobs))
    return jnp.clip(ratio, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)


def clipped_surrogate(
    log_ratio: Float[Array, "N T"],
    token_advantage: Float[Array, "N T"],
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float = 0.0,
) -> tuple[Float[Array, "N T"], dict[str, Float[Array, "N T"]]]:
    """Returns -min(rho A_t, clip(rho, 1 - clip_low, 1 + clip_high) A_t), rho = exp(log_ratio) (PPO; DAPO's two bounds).

    Args:
      clip_dual: where A_t < 0 the loss is at most -clip_dual A_t, so that a token that became much likelier has a bounded
        loss and no gradient (dual clip, arXiv 1912.09729); 0: no bound.

    Returns:
      loss per token, and per token: `clip_frac_low` and `clip_frac_high`, 1 where that bound made the gradient 0, with
      `clip_dual` also `clip_frac_dual`, and `kl_old_new`, the k3 estimate of KL(old || new) in nats.
    """
    ratio = jnp.exp(log_ratio)
    low, high = (token_advantage < 0) & (ratio < 1 - clip_low), (token_advantage > 0) & (ratio > 1 + clip_high)
    # `minimum` and `clip` would give only a part of the gradient at a bound, where a first update is if the bound is 0.
    loss = -jnp.where(low, 1 - clip_low, jnp.where(high, 1 + clip_high, ratio)) * token_advantage
    metrics = {
        "clip_frac_low": low.astype(ratio.dtype),
        "clip_frac_high": high.astype(ratio.dtype),
        "kl_old_new": ratio - 1 - log_ratio,
    }
    if clip_dual:
        beyond = (token_advantage < 0) & (ratio > clip_dual)
        loss = jnp.where(beyond, -clip_dual * token_advantage, loss)
        metrics["clip_frac_dual"] = beyond.astype(ratio.dtype)
    return loss, metrics


def k3(logprobs: Float[Array, "N T"], reference: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """Returns the k3 estimate of KL(policy || reference): exp(d) - 1 - d with d = reference - logprobs; never negative.

    Its gradient on the policy's samples is that of KL(reference || policy), not of what it estimates; that of `k2` is.
    """
    d = jnp.clip(reference - logprobs, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return jnp.exp(d) - 1 - d


def k2(logprobs: Float[Array, "N T"], reference: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """Returns the k2 estimate d^2 / 2, whose gradient on the policy's samples is that of KL(policy || reference)."""
    return jnp.square(reference - logprobs) / 2


KL_ESTIMATORS = {"k3": k3, "k2": k2}


def importance_weight(logprobs: Float[Array, "N T"], other: Float[Array, "N T"], *, cap: float) -> Float[Array, "N T"]:
    """Returns the truncated importance weight min(exp(logprobs - other), cap), without a gradient."""
    return jax.lax.stop_gradient(jnp.exp(jnp.minimum(logprobs - other, jnp.log(cap))))
