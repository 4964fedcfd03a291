"""Rules that distil: the credit is the weighted advantage, and the loss adds a divergence between student and teacher.

SDPO, OPSD, SDPG and HSD differ in their declarations: divergence, teacher and context.
"""

from amrsd_jax.credit.base import Rule, all_rows
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.scoring.divergence import Divergence


def weighted_reward(s: Signals, *, reward_weight: float = 0.0) -> TokenCredit:
    """A_t = reward_weight A; the divergence is added by the loss."""
    return TokenCredit(reward_weight * s.sequence_advantage * s.mask)


def sdpg(s: Signals, *, reward_weight: float = 1.0) -> TokenCredit:
    """A_t = reward_weight A: SDPG's policy gradient keeps the reward."""
    return weighted_reward(s, reward_weight=reward_weight)


RULES = (
    # SDPO (arXiv 2601.20802, the authors' code): top 100 of the student and a tail bucket, alpha 0.5, times min(rho_t, 2).
    # The teacher is a moving average; its context a correct sibling. Rows without one, such as those of a group that failed
    # whole and the only success of a group, are left out. Where failures have messages that say more than that they failed,
    # the authors also show those, `peer_solution,feedback`, with top 20 and alpha 1 (their script names a rate of 0.01 in a
    # field that the code does not read). The reduction `token_mean`,
    # and advantages that are not divided by the group's deviation are set by `configs/methods.py`.
    Rule(
        "sdpo",
        weighted_reward,
        all_rows,
        context="peer_solution",
        teacher="ema",
        distill=Divergence(alpha=0.5, top_k=100, support="student", importance_cap=2.0),
        reads_gap=False,
    ),
    # OPSD (arXiv 2601.18734): KL(T || S) over the whole vocabulary, each entry's contribution clipped at 0.05 nats, as in the
    # authors' code of 18 March 2026 by its README (their first release had the Jensen-Shannon form, alpha = 0.5, without a
    # clip). Where the teacher is sure of a token that the student doubts, that entry's term is clipped and has no gradient, and
    # the remaining terms raise the other entries (docs/findings.md). They sample one response per prompt, at temperature 1.1.
    Rule(
        "opsd",
        weighted_reward,
        all_rows,
        context="reference_solution",
        teacher="initial",
        distill=Divergence(alpha=0.0, entry_clip=0.05),
        reads_gap=False,
    ),
    # SDPG (arXiv 2606.04036, the authors' code): policy gradient + beta KL(S || T), beta = distill.coefficient = 1e-3. Its
    # third term, alpha / 2 (log pi / pi_ref)^2, is the loss's KL: loss.kl = 1e-3 with kl_estimator = k2 in configs/methods.py.
    Rule(
        "sdpg",
        sdpg,
        all_rows,
        context="answer",
        distill=Divergence(coefficient=1e-3, alpha=1.0),
        reads_gap=False,
        neutral=True,
        keeps_sign=True,
    ),
    # HSD (arXiv 2606.15576, equations 9 and 10): KL(T || S) over the whole vocabulary, without the reward; the teacher is the
    # policy, without a gradient, that sees the answer and a right sibling's solution, or else the answer alone. The text calls
    # the divergence reverse, its formula has the teacher first. A sibling is drawn at random there, here it is the next one.
    # Its KL to the policy of step 0, 1e-3, is set by `configs/methods.py`.
    Rule(
        "hsd",
        weighted_reward,
        all_rows,
        context="answer+peer_solution,answer",
        distill=Divergence(alpha=0.0),
        reads_gap=False,
    ),
)
