"""SRPO: successes learn from the reward, failures from a teacher that sees a correct peer, most where it is certain."""

import jax.numpy as jnp

from amrsd_jax.credit.base import Rule, mean
from amrsd_jax.credit.prefix_credit import needs_teacher
from amrsd_jax.records import Signals, TokenCredit


def srpo(s: Signals, *, beta: float = 1.0, coef: float = 1.0) -> TokenCredit:
    """A_t = A, but on failures that have a teacher A_t = coef w_t (l_T - l_S) (arXiv 2604.02288).

    w_t is exp(-beta H_t) over its mean on the tokens of all such failures, with H the teacher's entropy. One
    denominator for both kinds of rows, as in the paper, is the reduction `token_mean`. Routing, weights and denominator are
    those of a port by other authors (RLCSD's code), which quotes the paper; so is the sampled-token form of KL(S || T), which
    it offers beside SDPO's divergence over the top entries. The paper's own results are with the latter, which is not
    implemented here. A failure is a wrong answer, as in the paper; the port reads the sign of A. Failures without a correct
    peer keep A. The teacher and its context are SDPO's; coef is our choice.

    Args:
      s: advantage, reward, scored [N], mask, student_logprobs, teacher_logprobs and teacher_entropy [N, T] are read.
      beta: decay of a token's weight per nat of the teacher's entropy.
      coef: credit per nat of the gap.
    """
    routed = ((s.reward < 1) & s.scored)[:, None] & (s.mask > 0)
    entropy = jnp.where(routed, s.teacher_entropy, jnp.inf)
    least = jnp.min(entropy)
    weight = jnp.where(routed, jnp.exp(-beta * (jnp.where(routed, entropy, 0.0) - jnp.where(routed, least, 0.0))), 0.0)
    total = jnp.sort(weight.reshape(-1)).sum()  # sorted: the order of rows does not change the rounding
    weight = weight * routed.sum() / jnp.where(total > 0, total, 1.0)
    credit = jnp.where(routed, coef * weight * s.gap, s.sequence_advantage) * s.mask
    return TokenCredit(credit, {"routed": mean(routed.astype(s.mask.dtype), s.mask)})


RULE = Rule("srpo", srpo, needs_teacher, context="peer_solution", teacher="ema")
