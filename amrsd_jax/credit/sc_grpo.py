"""SC-GRPO: credit goes to the tokens at which a right peer's solution in view changes what the policy would say."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit, Value
from amrsd_jax.sections import Share

_LARGEST_GAP = 20.0  # nats: exp of more may overflow, and the weight is 1 long before


def sc_grpo(s: Signals, *, quantile: Share = 0.75, least: float = 1e-4) -> TokenCredit:
    """A_t = A D_t / (D_t + c), with D = KL(T || S) and c the `quantile` of the weighed tokens' D (arXiv 2606.18810).

    Groups with at least two right answers and a wrong one are weighed; rows of others, and those without a peer's solution,
    keep A. Weight, c = max(75th percentile, 1e-4) and groups are the paper's. It draws the peer at random and takes the
    quantile per micro-batch; here it is the next peer, and the quantile of the step. D is computed there over the vocabulary.
    Here it is the estimate r log r - r + 1 from the sampled token, r = exp(l_T - l_S), which is never negative and has D as its
    mean (our choice). The paper also explores in groups without a right answer, by the diversity of their responses, which is
    left out here.

    Args:
      s: advantage, group_right, scored [N], group, mask, student_logprobs and teacher_logprobs [N, T] are read.
      quantile: share of tokens whose D is below c.
      least: smallest c.
    """
    weighed = (weighed_groups(s) & s.scored)[:, None] & (s.mask > 0)
    d = divergence_estimate(s.gap)
    typical = jnp.nanquantile(jnp.where(weighed, d, jnp.nan), quantile)
    c = jnp.maximum(jnp.where(weighed.any(), typical, 1.0), jnp.maximum(least, jnp.finfo(d.dtype).tiny))
    weight = jnp.where(weighed, d / (d + c), 1.0)
    return TokenCredit(s.sequence_advantage * weight * s.mask, {"weight": mean(weight, s.mask), "typical": c})


def divergence_estimate(gap: Float[Array, "N T"]) -> Float[Array, "N T"]:
    """Returns an unbiased estimate of KL(T || S) from a token that S sampled, nats: r log r - r + 1, r = exp(gap)."""
    gap = jnp.clip(gap, -_LARGEST_GAP, _LARGEST_GAP)
    return jnp.maximum(gap * jnp.exp(gap) - jnp.expm1(gap), 0.0)  # accurate for small gaps


def weighed_groups(s: Signals) -> Bool[Value, " N"]:
    """Returns the rows with A != 0 of groups that have at least two right answers and a wrong one."""
    return (s.advantage != 0) & (s.group_right >= 2) & (s.group_right < s.group)


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows that are weighed."""
    return weighed_groups(s)


RULE = Rule("sc_grpo", sc_grpo, needs_teacher, context="peer_solution", keeps_sign=True)
