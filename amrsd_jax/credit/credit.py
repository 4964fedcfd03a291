"""CREDIT: a token is rewarded for what it says about this input, not for what it would say about any."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, mean


def credit(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    logp_negative: Float[Array, "K N T"],
    has_negative: Bool[Array, "K N"],
    lam: float = 1.0,
    coef: float = 1.0,
    reward_weight: float = 0.0,
    k: int = 1,
):
    """s_t = l_T(y_t | x, c) - lam mean_k l_T(y_t | x_k, c): response and context stay, x_k are other prompts of the batch.

    A_t = reward_weight A + coef s_t. The sum over tokens of l_T - l_S is the pointwise mutual information of response and
    feedback; the baseline takes away what the response would earn under any prompt (arXiv 2605.11613; the sampled-token form
    of the baseline, lam = 1 and one other prompt are second-hand). That the reward itself does not enter, as in SDPO, and
    both weights are our choice. A row without a context has s = 0; one without another prompt has s = l_T - l_S.

    Args:
      advantage: [N].
      logp_student, logp_teacher: l_S, l_T [N, T] in nats; no gradient flows into either.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      logp_negative, has_negative: l_T under each of K other prompts, and where there is one [K, N, T], [K, N].
      lam: share of the baseline.
      coef: weight of the token reward, per nat.
      reward_weight: weight of A.
      k: other prompts.
    """
    del step, k
    there = has_negative[:, :, None]
    baseline = jnp.sum(jnp.where(there, logp_negative, 0.0), axis=0) / jnp.maximum(there.sum(axis=0), 1)
    contrasted = has_negative.any(axis=0)[:, None]
    score = logp_teacher - jnp.where(contrasted, lam * baseline, logp_student)
    score = jax.lax.stop_gradient(score) * mask
    return reward_weight * advantage[:, None] * mask + coef * score, {"score": mean(score, mask)}


def needs(advantage, reward, step, *, lam=1.0, coef=1.0, reward_weight=0.0, k=1) -> Bool[np.ndarray, " N"]:
    """Every row: the token reward acts where A = 0 too."""
    return np.full(len(advantage), coef != 0)


RULE = Rule(
    "credit", credit, needs, context="peer_solution,feedback", teacher="ema", negatives="other_prompts"
)  # fmt: skip
