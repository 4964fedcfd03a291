"""SDPG: policy gradient, with a little distillation from a self that knows the answer."""

from jaxtyping import Array, Float, ScalarLike

from amrsd_jax.credit.base import Rule, all_rows
from amrsd_jax.scoring.divergence import Divergence


def sdpg(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward_weight: float = 1.0,
):
    """A_t = reward_weight A, beside beta KL(S || T) over the full vocabulary (arXiv 2606.04036, the authors' code).

    beta is `config.distill.coefficient`, 1e-3. The method's third term, alpha / 2 (log pi / pi_ref)^2, is the loss's KL to the
    reference: `loss.kl` = 1e-3 with `loss.kl_estimator` = k2, set in `configs/baselines.py:sdpg`.

    Args:
      advantage: [N].
      logp_student, logp_teacher: [N, T], ignored: the divergence reads both distributions whole.
      mask: 1 on tokens that count [N, T].
      step: ignored.
      reward_weight: weight of A.
    """
    del logp_student, logp_teacher, step
    return reward_weight * advantage[:, None] * mask, {}


RULE = Rule(
    "sdpg",
    sdpg,
    all_rows,
    context="answer",
    teacher="policy",
    distil=Divergence(coefficient=1e-3, alpha=1.0),
    reads_gap=False,
)
