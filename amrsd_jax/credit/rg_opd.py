"""RG-OPD: a teacher is distilled only where it agrees with the reward."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from amrsd_jax.credit.base import Hyper, Rule, mean
from amrsd_jax.records import Signals, TokenCredit


def rg_opd(s: Signals, *, coef: float = 1.0, margin: float = 0.0, per_token: bool = True) -> TokenCredit:
    """A_t = coef (l_T - l_S) where the teacher agrees with the reward, else 0 (arXiv 2607.04037, the authors' code).

    It agrees where A > 0 and l_T > l_S + margin, or A < 0 and l_T < l_S - margin. The reward has no other effect. The loss is
    a mean over the tokens that agree: under the reduction `token_mean`, which counts all, this is a multiplication of their
    credit by (all tokens) / (agreeing tokens), both of the step, also where it has several minibatches. The authors' paper
    compares whole responses, by the sums of both log-probabilities; their code compares tokens by default, because hardly any
    correct response passed. A = 0 is left out, as there. They distil KL(S || T) over the top 50 entries and a tail; its
    sampled-token form, which has the same gradient in expectation where nothing is left out, is our choice. So is the policy
    with a correct peer's solution in its prompt, where there is no larger model: theirs is `teacher.kind = external`,
    `external.workdir`, `credit.context = question`.

    Args:
      s: advantage [N], mask, student_logprobs and teacher_logprobs [N, T] are read.
      coef: credit per nat.
      margin: nats by which teacher and student must differ.
      per_token: compare each token, or else the whole response.
    """
    gap = jnp.where(s.mask > 0, s.gap, 0.0)
    compared = gap if per_token else gap.sum(axis=1, keepdims=True)
    base = s.sequence_advantage
    agrees = (((base > 0) & (compared > margin)) | ((base < 0) & (compared < -margin))) & (s.mask > 0)
    credit = jnp.where(agrees, coef * gap * s.mask.sum() / jnp.maximum(agrees.sum(), 1), 0.0)
    return TokenCredit(credit, {"agrees": mean(agrees.astype(s.mask.dtype), s.mask)})


def needs_teacher(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns the rows with A != 0."""
    return (s.advantage != 0) & (hyper.coef != 0)


RULE = Rule("rg_opd", rg_opd, needs_teacher, context="peer_solution")
