"""REINFORCE and RLOO: every token of a response gets its reward minus a baseline that is not GRPO's."""

from amrsd_jax.credit.base import Rule
from amrsd_jax.credit.grpo import grpo

# A_t = A, as in GRPO; the rules differ from it in the advantage, which is not divided by a deviation. REINFORCE subtracts the
# mean reward of the step's rows, or nothing with credit.baseline = none; verl's REINFORCE++ takes mean and deviation over the
# batch's tokens, to which credit.normalize = True is nearest. RLOO (arXiv 2402.14740; verl's code) subtracts the mean of the
# other responses to the same prompt, so its A is Dr.GRPO's times G / (G - 1). Neither has a clip, which does nothing with one
# update a step.
RULES = (
    Rule("reinforce", grpo, baseline="batch", neutral=True, keeps_sign=True),
    Rule("rloo", grpo, baseline="leave_one_out", neutral=True, keeps_sign=True),
)
