"""RLCSD: credit moves towards tokens that a correct peer's solution makes likelier than wrong peers' solutions do."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.credit.base import Rule, all_rows, mean
from amrsd_jax.credit.contrast import contrast


def rlcsd(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    logp_negative: Float[Array, "K N T"],
    has_negative: Bool[Array, "K N"],
    tau: float = 0.02,
    lam: float = 0.5,
    delta: float = 0.02,
    eta: float = 1.0,
    k: int = 4,
):
    """A_t = A + m u, with u = lam tanh(e / tau), m = 1[|u| > delta], e the contrast of peers (arXiv 2606.11709).

    A_t is clamped so that it keeps the sign of A, and is 0 where A = 0. Modulated tokens (m = 1) and the others are averaged
    separately, the others with weight eta: here each kind's credit is multiplied by (all tokens) / (its tokens), which is
    that under the reduction `token_mean`, over the tokens of the whole batch. Form and defaults are those of the authors'
    code.

    Args:
      advantage: [N].
      logp_student: ignored [N, T].
      logp_teacher: l_T given a correct peer [N, T], nats; no gradient flows into it.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      logp_negative, has_negative: l_T given each of K wrong peers, and where there is one [K, N, T], [K, N].
      tau: nats at which the contrast saturates.
      lam: largest modulation.
      delta: modulation below which a token is left alone.
      eta: weight of the tokens that are left alone.
      k: wrong peers per row at most.
    """
    del logp_student, step, k
    shift = lam * jnp.tanh(contrast(logp_teacher, logp_negative, has_negative) / tau)
    base = advantage[:, None]
    modulated = (jnp.abs(shift) > delta) & (base != 0) & (mask > 0)
    kept = jnp.where(base > 0, jnp.maximum(base + shift, 0), jnp.minimum(base + shift, 0))
    tokens, touched = mask.sum(), modulated.sum()
    weight = jnp.where(
        modulated,
        tokens / jnp.maximum(touched, 1),
        jnp.where(touched > 0, eta * tokens / jnp.maximum(tokens - touched, 1), 1.0),
    )
    return jnp.where(modulated, kept, base) * weight * mask, {"modulated": mean(modulated.astype(mask.dtype), mask)}


def needs(advantage, reward, step, *, tau=0.02, lam=0.5, delta=0.02, eta=1.0, k=4):
    """Rows with A != 0."""
    return all_rows(advantage, reward, step) & (advantage != 0) & (lam > delta)


RULE = Rule("rlcsd", rlcsd, needs, context="peer_solution", teacher="snapshot", negatives="wrong_peers")
