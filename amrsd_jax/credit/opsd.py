"""OPSD: on its own responses the policy learns the distribution of its first self, shown the reference solution."""

from jaxtyping import Array, Float, ScalarLike

from amrsd_jax.credit.base import Rule, all_rows
from amrsd_jax.scoring.divergence import Divergence


def opsd(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward_weight: float = 0.0,
):
    """A_t = reward_weight A, beside the full-vocabulary KL(T || S), each entry's contribution clipped (arXiv 2601.18734).

    The clip of 0.05 nats is a re-implementation's (second-hand). Beware of it where the teacher is sure of what the student
    doubts: the term of that entry is cut, gradient and all, and what remains raises the others (`docs/findings.md`). The
    authors' released script has the Jensen-Shannon form, `config.distill.alpha` = 0.5, without a clip.

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
    "opsd",
    opsd,
    all_rows,
    context="reference_solution",
    teacher="initial",
    distil=Divergence(alpha=0.0, entry_clip=0.05),
    reads_gap=False,
)
