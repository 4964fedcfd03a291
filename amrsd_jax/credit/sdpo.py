"""SDPO: the policy learns the distribution of a slow copy of itself that has seen a sibling's success, or the feedback."""

from jaxtyping import Array, Float, ScalarLike

from amrsd_jax.credit.base import Rule, all_rows
from amrsd_jax.scoring.divergence import Divergence


def sdpo(
    advantage: Float[Array, " N"],
    logp_student: Float[Array, "N T"],
    logp_teacher: Float[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    step: ScalarLike,
    reward_weight: float = 0.0,
):
    """A_t = reward_weight A, beside a divergence on the student's top entries and a tail bucket (arXiv 2601.20802).

    The divergence is the authors' code's: top 100, alpha 0.5, times min(rho_t, 2); the teacher is a moving average, its
    context the first correct sibling, or the verifier's message where there is none. Rows with neither are left out of it. The
    paper's moving average has rate 0.05 (`teacher.rate`), its reduction is `token_mean`, and where the reward is added it is
    not divided by the group's deviation: `configs/baselines.py:sdpo` sets these. With rich feedback the paper has top 20,
    alpha 1, rate 0.01.

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
    "sdpo",
    sdpo,
    all_rows,
    context="peer_solution,feedback",
    teacher="ema",
    distil=Divergence(alpha=0.5, top_k=100, support="student", importance_cap=2.0),
    reads_gap=False,
)
