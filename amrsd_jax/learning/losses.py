"""Losses per token, and the one place that reduces them: how a loss is averaged is part of the algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LARGEST_LOG_RATIO = 20.0  # nats: beyond it exp would overflow, and 0 * inf is not a number (our choice)

RATIOS = ("token", "sequence")
REDUCTIONS = ("sequence_mean", "token_mean", "constant")


def reduction_weights(
    mask: Float[Array | np.ndarray, "N T"], mode: str, *, constant_length: int | None = None
) -> Float[Array | np.ndarray, "N T"]:
    """Weight of every token, so that the loss is sum(weight * per-token loss), over micro-batches and devices alike.

    Args:
      mask: 1 on tokens that count, on the host or a device; so is the result.
      mode: `sequence_mean` averages over the tokens of a row, then over the rows that have any (GRPO); `token_mean`
        over all tokens of the batch (DAPO); `constant` divides a row's sum by a constant length, then by N (Dr.GRPO).
      constant_length: that length.

    Raises:
      ValueError: unknown mode.
    """
    lengths = mask.sum(axis=1, keepdims=True)
    if mode == "sequence_mean":
        return mask / lengths.clip(1) / (lengths > 0).sum(dtype=mask.dtype).clip(1)
    if mode == "token_mean":
        return mask / mask.sum().clip(1)
    if mode == "constant":
        return mask / (constant_length * mask.shape[0])
    raise ValueError(f"loss.reduction = {mode!r}: expected one of {', '.join(REDUCTIONS)}")


def log_ratio(
    logp: Float[Array, "N T"], logp_old: Float[Array, "N T"], mask: Float[Array, "N T"], level: str
) -> Float[Array, "N T"]:
    """Log of pi / pi_old, per `token`, or per `sequence`: the mean over a row's tokens, the same at each of them (GSPO)."""
    ratio = logp - logp_old
    if level == "sequence":
        ratio = jnp.where(mask > 0, ratio, 0.0).sum(axis=1, keepdims=True) / jnp.maximum(
            mask.sum(axis=1, keepdims=True), 1
        )
        ratio = jnp.broadcast_to(ratio, mask.shape)
    return jnp.clip(ratio, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)


def clipped_surrogate(
    log_ratio: Float[Array, "N T"], token_advantage: Float[Array, "N T"], *, clip_low: float, clip_high: float
) -> tuple[Float[Array, "N T"], dict[str, Float[Array, "N T"]]]:
    """-min(rho A_t, clip(rho, 1 - clip_low, 1 + clip_high) A_t), rho = exp(log_ratio) (PPO; DAPO's two bounds).

    Returns:
      loss per token, and per-token indicators: where a bound took the gradient away, and the k3 estimate of
      KL(old || new) in nats.
    """
    ratio = jnp.exp(log_ratio)
    bounded = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    loss = -jnp.minimum(ratio * token_advantage, bounded * token_advantage)
    return loss, {
        "clip_low": ((token_advantage < 0) & (ratio < 1 - clip_low)).astype(ratio.dtype),
        "clip_high": ((token_advantage > 0) & (ratio > 1 + clip_high)).astype(ratio.dtype),
        "kl": ratio - 1 - log_ratio,
    }


def k3(logp: Float[Array, "N T"], logp_reference: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """k3 estimate of KL(policy || reference): exp(d) - 1 - d with d = logp_reference - logp; never negative."""
    d = jnp.clip(logp_reference - logp, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return jnp.exp(d) - 1 - d


def k2(logp: Float[Array, "N T"], logp_reference: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """k2 estimate, d^2 / 2: the one whose gradient is that of KL(policy || reference) on the policy's own samples."""
    return jnp.square(logp_reference - logp) / 2


KL_ESTIMATORS = {"k3": k3, "k2": k2}


def importance_weight(logp: Float[Array, "N T"], logp_old: Float[Array, "N T"], *, cap: float) -> Float[Array, "N T"]:
    """Truncated importance weight between two views of the policy: min(pi / pi_old, cap), detached."""
    return jax.lax.stop_gradient(jnp.exp(jnp.minimum(logp - logp_old, jnp.log(cap))))
