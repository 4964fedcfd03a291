"""Every registered rule: numbers worked by hand, and the properties that rules share or declare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax import credit
from amrsd_jax.credit import Hyper, Signals, assign, group_advantage, overlong_penalty
from amrsd_jax.credit.sc_grpo import divergence_estimate
from amrsd_jax.records import LogProbs
from tests.tiny import tiny_rollouts

E, LOG2, LOG3 = np.e, np.log(2), np.log(3)
ENTROPIES = {"student_entropy": [[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]], "mask": [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]}

# rule -> cases of (advantage [N], gap l_T - l_S [N, T], step, hyper-parameters and other signals, token advantage [N, T])
BY_HAND = {
    "grpo": [([1.5, -0.5], [[3.0, -3.0], [0.0, 9.0]], 7, {}, [[1.5, 1.5], [-0.5, -0.5]])],
    # the reward minus a baseline, which test_group_advantage_with_other_baselines works out
    "reinforce": [([0.75, -0.25], [[3.0, -3.0], [0.0, 9.0]], 7, {}, [[0.75, 0.75], [-0.25, -0.25]])],
    "rloo": [([1.0, -1 / 3], [[3.0, -3.0], [0.0, 9.0]], 7, {}, [[1.0, 1.0], [-1 / 3, -1 / 3]])],
    "amrsd": [
        # lam .2, gamma .1, tau .2, kappa 5, step 0: 1 + .2 relu(I - .2) where A >= 0, 1 + .1 relu(-I - .2) where A < 0
        ([1.0, -2.0], [[1.2, -1.2], [1.2, -1.2]], 0, {}, [[1.2, 1.0], [-2.0, -2.2]]),
        # the gain is clipped at kappa: .2 (5 - .2) = .96 and .1 (5 - .2) = .48
        ([1.0, -1.0], [[100.0, -100.0], [100.0, -100.0]], 0, {}, [[1.96, 1.0], [-1.0, -1.48]]),
        # half of the annealing done
        ([1.0], [[1.2]], 25, {}, [[1.1]]),
        ([1.0], [[1.2]], 50, {}, [[1.0]]),
        ([1.0], [[1.2]], 75, {}, [[1.0]]),
        ([1.0], [[1.2]], 75, {"decay_steps": 0}, [[1.2]]),
        ([1.0], [[1.2]], 0, {"tau": 0.0, "lam": 1.0}, [[2.2]]),
        ([0.0], [[5.0]], 0, {}, [[0.0]]),
        ([-1.0], [[-1.2]], 0, {"gamma": 0.5}, [[-1.5]]),
        # a penalty for length turned the sign: a right answer is blamed, a wrong one of a group that failed whole is not
        ([-1.0, 0.58], [[-1.2, 1.2]] * 2, 0, {"reward": [1.0, 0.0]}, [[-1.0, -1.0], [0.58, 0.58]]),
    ],
    "rlsd": [
        # lam .5, band 1 -+ .2: halfway between A and A times the ratio, which is turned over for failures
        ([2.0, -2.0], [[0.1, -0.1], [0.1, -0.1]], 0, {}, [[1 + E**0.1, 1 + E**-0.1], [-1 - E**-0.1, -1 - E**0.1]]),
        ([1.0, -1.0], [[9.0, -9.0], [9.0, -9.0]], 0, {}, [[1.1, 0.9], [-0.9, -1.1]]),
        ([1.0], [[9.0]], 25, {}, [[1.05]]),
        ([1.0], [[9.0]], 50, {}, [[1.0]]),
        ([1.0], [[9.0]], 60, {"decay_steps": 0, "lam": 1.0, "eps_w": 0.3}, [[1.3]]),
    ],
    "rlrt": [
        (
            [1.0, -1.0],
            [[0.5, -9.0], [0.5, -9.0]],
            0,
            {"reward": [1.0, 0.0]},
            [[0.5 + 0.5 * E**-0.5, 1.5], [-1.0, -1.0]],
        ),
        ([1.0], [[9.0]], 99, {"reward": [1.0], "eps_w": 0.2}, [[0.9]]),
        ([1.0], [[9.0]], 0, {"reward": [0.5]}, [[1.0]]),
    ],
    # with the usual signals below the one wrong peer reads like the student, so the contrast e is the gap
    "rlcsd": [
        # u = .5 tanh(e / .02) = .25; one token of two is modulated, so each kind's mean counts twice its tokens' share
        ([1.0], [[0.02 * np.arctanh(0.5), 0.0]], 0, {}, [[2.5, 2.0]]),
        ([-1.0], [[0.02 * np.arctanh(0.5), 0.0]], 0, {"eta": 0.5}, [[-0.75, -2.0]]),
        ([-1.0], [[0.02 * np.arctanh(0.5), 0.0]], 0, {"eta": 0.0}, [[0.0, -2.0]]),
        # of four tokens two count, those of the row with a wrong hint and an advantage: each kind is one of them
        ([1.0, 0.0], [[0.02 * np.arctanh(0.5), 0.0], [9.0, 0.0]], 0, {}, [[5.0, 4.0], [0.0, 0.0]]),
        (
            [1.0, -1.0],
            [[0.02 * np.arctanh(0.5), 0.0], [9.0, 0.0]],
            0,
            {"has_negative": [[True, False]]},
            [[5.0, 4.0], [0.0, 0.0]],
        ),
        ([0.1, -0.1, 0.0], [[-9.0], [9.0], [9.0]], 0, {}, [[0.0], [0.0], [0.0]]),  # the sign is kept
        ([1.0], [[0.02 * np.arctanh(0.03)]], 0, {}, [[1.0]]),  # u = .015, below delta
        ([1.0], [[9.0]], 0, {"has_negative": [[False]]}, [[0.0]]),
        # wrong peers at e^-1 and 3 e^-1: their mean is 2 e^-1, so with gap log 2 there is no contrast
        (
            [1.0],
            [[np.log(2)]],
            0,
            {"negative_logprobs": [[[-1.0]], [[np.log(3) - 1]]], "has_negative": [[True]] * 2},
            [[1.0]],
        ),
    ],
    "cepo": [
        ([2.0, -2.0], [[0.1, -0.1], [0.1, -0.1]], 0, {}, [[1 + E**0.1, 1 + E**-0.1], [-1 - E**-0.1, -1 - E**0.1]]),
        ([1.0, -1.0], [[9.0, -9.0]] * 2, 0, {}, [[1.25, 0.75], [-0.75, -1.25]]),  # halfway to the bounds 1 -+ .5
        ([1.0], [[9.0]], 0, {"eps_w": 0.4}, [[1.2]]),
        ([1.0], [[9.0]], 25, {}, [[1.0]]),
        ([1.0], [[9.0]], 0, {"has_negative": [[False]]}, [[1.0]]),
    ],
    "credit": [
        # the other prompt has the student's -1: s = gap - .1 (-1)
        ([7.0], [[0.5, -2.0]], 9, {}, [[0.6, -1.9]]),
        ([7.0], [[0.5]], 0, {"reward_weight": 1.0, "coef": 0.5}, [[7.3]]),
        # two other prompts at -1 and -3: s = .5 - .5 (-2)
        (
            [0.0],
            [[0.5]],
            0,
            {"lam": 0.5, "negative_logprobs": [[[-1.0]], [[-3.0]]], "has_negative": [[True]] * 2},
            [[1.5]],
        ),
        ([0.0], [[0.5]], 0, {"lam": 0.5, "has_negative": [[False]]}, [[0.5]]),
    ],
    "antisd": [
        # phi(log 3) = (log 4 - log 2) / 2
        ([1.0, 0.0], [[np.log(3)], [np.log(3)]], 0, {}, [[1 - np.log(2) / 4], [-np.log(2) / 4]]),
        ([1.0], [[np.log(3)]], 0, {"memory": [0.0] * 7}, [[1.0]]),  # the warm-up
        ([1.0], [[np.log(3)]], 0, {"teacher_entropy": [[0.92]]}, [[1.0]]),  # below .93 of the baseline, 1
        ([1.0], [[np.log(3)]], 0, {"teacher_entropy": [[0.94]]}, [[1 - np.log(2) / 4]]),  # between: the gate stays on
        ([1.0], [[np.log(3)]], 0, {"teacher_entropy": [[0.94]], "memory": [1.0] * 5 + [5.0, 0.0]}, [[1.0]]),
    ],
    "sdpo": [([1.0], [[9.0]], 0, {}, [[0.0]]), ([1.0], [[9.0]], 0, {"reward_weight": 0.5}, [[0.5]])],
    "opsd": [([1.0], [[9.0]], 0, {}, [[0.0]]), ([1.0], [[9.0]], 0, {"reward_weight": 0.5}, [[0.5]])],
    "hsd": [([1.0], [[9.0]], 0, {}, [[0.0]]), ([1.0], [[9.0]], 0, {"reward_weight": 0.5}, [[0.5]])],
    "sdpg": [([1.0, -1.0], [[9.0], [9.0]], 0, {}, [[1.0], [-1.0]])],
    "entropy_tokens": [
        # five tokens count; the .8 quantile of their entropies, 1 .. 5, is 4.2, the .6 quantile 3.4, the .5 quantile 3
        ([2.0, -1.0], [[0.0] * 3] * 2, 0, ENTROPIES, [[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]),
        ([2.0, -1.0], [[0.0] * 3] * 2, 0, ENTROPIES | {"share": 0.4}, [[0.0, 2.0, 0.0], [0.0, -1.0, 0.0]]),
        ([2.0, -1.0], [[0.0] * 3] * 2, 0, ENTROPIES | {"share": 0.5}, [[0.0, 2.0, 2.0], [0.0, -1.0, 0.0]]),
        ([2.0, -1.0], [[0.0] * 3] * 2, 0, ENTROPIES | {"share": 1.0}, [[2.0, 2.0, 2.0], [-1.0, -1.0, 0.0]]),
        ([1.0], [[0.0] * 3], 0, {"student_entropy": [[2.0, 2.0, 1.0]]}, [[1.0, 1.0, 0.0]]),  # ties are included
    ],
    "feedback_alignment": [
        ([1.0, 0.0], [[0.5, -2.0], [0.5, -2.0]], 9, {}, [[0.5, -2.0], [0.5, -2.0]]),
        ([1.0], [[0.5]], 0, {"coef": 3.0}, [[1.5]]),
    ],
    "opd": [
        ([1.0, 0.0], [[0.5, -2.0], [0.5, -2.0]], 9, {}, [[0.5, -2.0], [0.5, -2.0]]),
        ([1.0], [[0.5]], 0, {"coef": 3.0}, [[1.5]]),
    ],
    "distilled_rl": [
        # ratios 2 and 1/2, whose geometric mean is 1
        ([1.0, -1.0], [[LOG2, -LOG2], [LOG2, -LOG2]], 9, {}, [[2.0, 0.5], [-1.0, -1.0]]),
        # 4 and 1, clipped to 3 and 1: over sqrt(3)
        ([1.0, 0.0], [[2 * LOG2, 0.0], [2 * LOG2, 0.0]], 0, {}, [[3**0.5, 3**-0.5], [0.0, 0.0]]),
        ([1.0], [[2 * LOG2, 0.0]], 0, {"bound": LOG2}, [[2**0.5, 2**-0.5]]),
        # padding is no part of the mean
        ([1.0], [[LOG2, 9.0]], 0, {"mask": [[1.0, 0.0]]}, [[1.0, 0.0]]),
    ],
    "srpo": [
        # equally certain everywhere: the success keeps A, the failure has the gap
        ([1.0, -1.0], [[0.5, -2.0], [0.5, -2.0]], 9, {}, [[1.0, 1.0], [0.5, -2.0]]),
        # exp(-H) is 1 and 1/3 on the failure, over their mean 2/3: 3/2 and 1/2
        ([1.0, -1.0], [[0.5, -2.0]] * 2, 0, {"teacher_entropy": [[0.0, 0.0], [0.0, LOG3]]}, [[1.0, 1.0], [0.75, -1.0]]),
        # exp(-2 H) is 1 and 1/9, over 5/9: 9/5 and 1/5
        ([-1.0], [[0.5, -2.0]], 0, {"teacher_entropy": [[0.0, LOG3]], "beta": 2.0}, [[0.9, -0.4]]),
        ([-1.0], [[0.5]], 0, {"coef": 3.0}, [[1.5]]),
        ([-1.0], [[0.5]], 0, {"scored": [False]}, [[-1.0]]),  # no correct peer
        ([0.0, 0.0], [[0.5], [0.5]], 0, {"reward": [1.0, 0.0]}, [[0.0], [0.5]]),
    ],
    "sc_grpo": [
        # D of gap log 2 is 2 log 2 - 1, of gap 0 is 0; the .75 quantile of the two is .75 D: weights 1 / 1.75 and 0
        ([2.0], [[LOG2, 0.0]], 9, {}, [[8 / 7, 0.0]]),
        ([-1.0], [[LOG2, 0.0]], 0, {}, [[-4 / 7, 0.0]]),
        ([1.0], [[LOG2, 0.0]], 0, {"quantile": 1.0}, [[0.5, 0.0]]),
        ([1.0], [[LOG2, 0.0]], 0, {"quantile": 0.0, "least": 2 * LOG2 - 1}, [[0.5, 0.0]]),
        ([1.0], [[0.0, 0.0]], 0, {}, [[0.0, 0.0]]),
        # groups with one right answer or none wrong, and rows without a peer's solution, have no weights
        ([1.0, -1.0], [[LOG2]] * 2, 0, {"group_right": [1.0, 4.0]}, [[1.0], [-1.0]]),
        ([1.0], [[LOG2]], 0, {"scored": [False]}, [[1.0]]),
        # nor does their D count towards the quantile
        ([1.0, 1.0], [[LOG2, 0.0], [9.0, 9.0]], 0, {"group_right": [2.0, 1.0]}, [[4 / 7, 0.0], [1.0, 1.0]]),
    ],
    "cast": [
        # within .8 to 1.05 the ratio itself; below .8 the sign is turned
        ([1.0], [[0.01, 0.1, -0.1, -0.5]], 9, {}, [[E**0.01, 1.05, E**-0.1, -0.8]]),
        # the ratio of a failure is turned over, and within .95 to 1.2; below .95 the sign is turned
        ([-1.0], [[-0.1, -9.0, 0.01, 0.2]], 0, {}, [[-(E**0.1), -1.2, -(E**-0.01), 0.95]]),
        # groups of equal rewards
        ([0.0, 0.0], [[0.0, 9.0]] * 2, 0, {"reward": [1.0, 0.0]}, [[1.0, 1.05], [-1.0, 0.95]]),
        ([0.0, 0.0], [[0.0]] * 2, 0, {"reward": [1.0, 0.0], "base": 0.5}, [[0.5], [-0.5]]),
        ([2.0, -2.0], [[0.0], [0.0]], 0, {}, [[1.2], [-1.2]]),
        ([2.0], [[-9.0]], 0, {"limit": 5.0, "outer": 0.5}, [[-1.0]]),
        ([1.0], [[9.0, -9.0]], 0, {"lam": 0.5, "inner": 0.1, "flip": 0.0}, [[1.05, 0.0]]),
    ],
    "pbsd": [
        # tanh is a quarter
        ([2.0, -2.0], [[np.arctanh(0.25), -np.arctanh(0.25)]] * 2, 9, {}, [[2.5, 1.5], [-1.5, -2.5]]),
        ([1.0, -1.0], [[9.0, -9.0]] * 2, 0, {}, [[1.5, 0.5], [-0.5, -1.5]]),
        ([1.0], [[2 * np.arctanh(0.25)]], 0, {"delta": 2.0}, [[1.25]]),
        ([1.0], [[0.1, -0.1]], 0, {"delta": 0.0, "bound": 1.0}, [[2.0, 0.0]]),
    ],
    "rg_opd": [
        # two of four tokens agree, so that their mean is twice the sum over all
        ([1.0, -1.0], [[0.5, -2.0]] * 2, 9, {}, [[1.0, 0.0], [0.0, -4.0]]),
        ([1.0, 0.0], [[0.5], [0.5]], 0, {}, [[1.0], [0.0]]),
        ([1.0, -1.0], [[0.5, -2.0]] * 2, 0, {"margin": 1.0, "coef": 0.5}, [[0.0, 0.0], [0.0, -4.0]]),
        # both responses are less likely under the teacher: only the failure agrees
        ([1.0, -1.0], [[0.5, -2.0]] * 2, 0, {"per_token": False}, [[0.0, 0.0], [1.0, -4.0]]),
        ([1.0], [[-0.5]], 0, {}, [[0.0]]),
    ],
    "oppo": [
        # two of four are right: from 1/2, evidence of log 3 leads to the belief 3/4, and back
        ([1.0, -1.0], [[LOG3, -LOG3]] * 2, 9, {}, [[0.25, 0.0], [0.0, -0.25]]),
        # one of four: from 1/4 to 1/2; all of them, taken for 7/8: from there to 1/2
        ([1.0, -1.0], [[LOG3], [-np.log(7)]], 0, {"group_right": [1.0, 4.0]}, [[0.25], [-0.375]]),
        ([1.0], [[9.0]], 0, {"kappa": LOG3, "coef": 4.0}, [[1.0]]),
        ([0.0], [[9.0]], 0, {}, [[0.0]]),
    ],
    "hybrid": [
        ([1.0, 0.0], [[0.5, -2.0], [0.5, -2.0]], 9, {}, [[1.5, -1.0], [0.5, -2.0]]),
        ([-1.0], [[0.5]], 0, {"coef": 0.2}, [[-0.9]]),
    ],
    "masked_blame": [
        ([-1.0, 1.0], [[-0.3, 0.9], [-0.3, 0.9]], 0, {}, [[-1.0, 0.0], [1.0, 1.0]]),
        ([-1.0], [[-0.3, -0.1, 0.0]], 0, {"floor": 0.25}, [[-1.0, -0.25, -0.25]]),
        ([-1.0], [[-0.1, 0.9]], 0, {}, [[-1.0, -1.0]]),  # nothing is disputed
        ([-1.0], [[-0.1, 0.9]], 0, {"tau": 0.05}, [[-1.0, 0.0]]),
        ([-1.0], [[-0.3, 0.9]], 0, {"reward": [1.0]}, [[-1.0, -1.0]]),  # a right answer: its reflection is a hint
    ],
    "prefix_credit": [
        (
            [-0.5, 0.5],
            [[0.0, -0.3, 0.0], [0.0, -0.3, 0.0]],
            0,
            {"reward": [0.0, 1.0]},
            [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
        ),
        ([0.0], [[0.0, -0.3, 0.0]], 0, {"reward": [0.0], "prefix": 0.25}, [[0.25, 0.0, 0.0]]),  # a dead group
        ([-0.5], [[0.0, -0.3, 0.0]], 0, {"reward": [0.0], "rest": 1.0}, [[1.0, -0.5, -0.5]]),
        ([-0.5], [[0.0, 0.0, 0.0]], 0, {"reward": [0.0]}, [[-0.5, -0.5, -0.5]]),  # nothing is disputed
    ],
    "quoted_blame": [
        ([-0.5], [[0.0] * 4], 0, {"reward": [0.0], "quoted": [[2, 3]]}, [[0.0, 0.0, -0.5, -0.5]]),
        ([0.0], [[0.0] * 3], 0, {"reward": [0.0], "quoted": [[1, 2]], "prefix": 1.0}, [[1.0, 0.0, 0.0]]),
        (
            [-0.5, 0.5],
            [[0.0] * 2] * 2,
            0,
            {"reward": [0.0, 1.0], "quoted": [[-1, -1], [0, 1]]},
            [[-0.5] * 2, [0.5] * 2],
        ),
    ],
    "oracle_first_error": [
        ([-1.0], [[0.0] * 4], 0, {"first_error": [[1, 3]]}, [[0.0, -1.0, -1.0, 0.0]]),
        ([-1.0, 1.0], [[0.0] * 2] * 2, 0, {"first_error": [[-1, -1], [0, 1]]}, [[-1.0, -1.0], [1.0, 1.0]]),
    ],
    "oracle_prefix": [
        ([0.0], [[0.0] * 4], 0, {"reward": [0.0], "first_error": [[2, 3]]}, [[1.0, 1.0, 0.0, 0.0]]),
        ([-0.5], [[0.0] * 4], 0, {"reward": [0.0], "first_error": [[2, 3]], "rest": 1.0}, [[1.0, 1.0, -0.5, -0.5]]),
        ([-0.5], [[0.0] * 2], 0, {"reward": [0.0], "first_error": [[-1, -1]]}, [[-0.5, -0.5]]),
    ],
    "shuffled_blame": [
        # two failures of five tokens, whose numbers are the first and the last token, take each other's place
        (
            [-0.5, -0.5, 0.5],
            [[0.0] * 5] * 3,
            0,
            {"reward": [0.0, 0.0, 1.0], "quoted": [[0, 1], [4, 5], [2, 3]], "noise": [0.9, 0.1, 0.5]},
            [[0.0] * 4 + [-0.5], [-0.5] * 5, [0.5] * 5],
        ),
        # in the order of the noise: of three tokens the second to the third row, of the third row the first to the second
        (
            [-0.5] * 3,
            [[0.0] * 3] * 3,
            0,
            {"reward": [0.0] * 3, "quoted": [[-1, -1], [1, 2], [0, 1]], "noise": [0.1, 0.2, 0.3]},
            [[-0.5] * 3, [-0.5] * 3, [0.0, -0.5, -0.5]],
        ),
        (
            [-0.5],
            [[0.0] * 3],
            0,
            {"reward": [0.0], "quoted": [[1, 2]], "noise": [0.9]},
            [[0.0, -0.5, -0.5]],
        ),  # no other
        ([-0.5], [[0.0] * 2], 0, {"reward": [0.0], "quoted": [[-1, -1]], "noise": [0.9]}, [[-0.5] * 2]),  # no number
    ],
    "random_step": [
        # a wrong step of two tokens in four: three places to put it
        ([-1.0], [[0.0] * 4], 0, {"first_error": [[1, 3]], "noise": [0.0]}, [[-1.0, -1.0, 0.0, 0.0]]),
        ([-1.0], [[0.0] * 4], 0, {"first_error": [[1, 3]], "noise": [0.99]}, [[0.0, 0.0, -1.0, -1.0]]),
        ([-1.0, 1.0], [[0.0] * 2] * 2, 0, {"first_error": [[-1, -1], [0, 1]]}, [[-1.0, -1.0], [1.0, 1.0]]),
    ],
    "scale_failures": [
        ([-9.0, 2.0], [[5.0], [5.0]], 0, {}, [[-1.0], [2.0]]),
        ([-1.0], [[0.0]], 0, {"scale": 0.5}, [[-0.5]]),
    ],
    "drop_failures": [([-9.0, 2.0, 0.0], [[5.0], [5.0], [5.0]], 0, {}, [[0.0], [2.0], [0.0]])],
}

every_rule = pytest.mark.parametrize("rule", credit.RULES.values(), ids=credit.RULES)
NEUTRAL = [rule for rule in credit.RULES.values() if rule.neutral]
KEEPS_SIGN = [rule for rule in credit.RULES.values() if rule.keeps_sign]

AXES = {
    "advantage": "N", "reward": "N", "mask": "NT", "student_logprobs": "NT", "teacher_logprobs": "NT",
    "student_entropy": "NT", "teacher_entropy": "NT", "scored": "N", "negative_logprobs": "KNT", "has_negative": "KN",
    "first_error": "N2", "quoted": "N2", "noise": "N", "group_right": "N", "answer": "N2",
}  # fmt: skip
EXTRAS = ("answer",)  # of `Signals.extras`: the span that the embedded tasks declare
KNOWN_BEFORE = ("step", "advantage", "reward", "mask", "group", "group_right")  # before the teacher's pass
SIZES = {"N": 4, "T": 6, "K": 2, "2": 2}
SPANS = ("first_error", "quoted", *EXTRAS)
TYPES = dict.fromkeys(SPANS, jnp.int32) | {"scored": bool, "has_negative": bool}


def signals(rule, values: dict) -> Signals:
    """Returns signals padded to one shape, so that each operation is compiled once; memory is the rule's unless given."""
    arrays = {"memory": jnp.asarray(values.get("memory", rule.memory), jnp.float32)}
    for name, value in values.items():
        widths = [(0, SIZES[axis] - size) for axis, size in zip(AXES.get(name, ""), np.shape(value), strict=False)]
        arrays[name] = jnp.asarray(np.pad(value, widths) if widths else value, TYPES.get(name, jnp.float32))
    return Signals(extras={name: arrays.pop(name) for name in EXTRAS if name in arrays}, **arrays)


@every_rule
def test_by_hand(rule):
    assert BY_HAND.get(rule.name), f"add numbers worked by hand for rule {rule.name!r} to BY_HAND in {__file__}"
    for advantage, gap, step, given, expected in BY_HAND[rule.name]:
        rows, length = np.shape(gap)
        usual = {
            "step": step,
            "advantage": advantage,
            "reward": (np.asarray(advantage) > 0) * 1.0,
            "mask": np.ones((rows, length)),
            "student_logprobs": np.full((rows, length), -1.0),
            "teacher_logprobs": np.asarray(gap) - 1.0,
            "student_entropy": np.ones((rows, length)),
            "teacher_entropy": np.ones((rows, length)),
            "scored": np.ones(rows),
            "negative_logprobs": np.full((1, rows, length), -1.0),
            "has_negative": np.ones((1, rows)),
            "first_error": np.tile([1, 2], (rows, 1)),
            "quoted": np.tile([1, 2], (rows, 1)),
            "answer": np.tile([length - 1, length], (rows, 1)),
            "noise": np.full(rows, 0.3),
            "group": 4,
            "group_right": np.full(rows, 2.0),
            "memory": [1.0] * 5 + [5.0, 1.0],
        }
        hyper = {name: value for name, value in given.items() if name not in usual}
        chosen = usual | {name: value for name, value in given.items() if name in usual}
        result = rule(signals(rule, chosen), **hyper).token_advantage[:rows, :length]
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- properties


def random_values(seed, rows=SIZES["N"], length=SIZES["T"]) -> dict:
    """All signals of a step but the memory, at random."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, length + 1, rows)
    start = generator.integers(0, lengths)
    end = generator.integers(start, lengths) + 1
    known = generator.random((rows, 1)) < 0.7
    shape = (rows, length)
    advantage = generator.choice([-1.3, 0.0, 0.7], rows)
    return {
        "step": generator.integers(0, 60),
        "advantage": advantage,
        "reward": np.where(advantage == 0, generator.choice([0.0, 1.0], rows), advantage > 0),
        "mask": np.arange(length) < lengths[:, None],
        "student_logprobs": -generator.exponential(2, shape),
        "teacher_logprobs": -generator.exponential(2, shape),
        "student_entropy": generator.exponential(1, shape),
        "teacher_entropy": generator.exponential(1, shape),
        "scored": np.ones(rows),
        "negative_logprobs": -generator.exponential(2, (2, *shape)),
        "has_negative": generator.random((2, rows)) < 0.7,
        "first_error": np.where(known, np.stack([start, end], axis=1), -1),
        "quoted": np.where(known, np.stack([start, end], axis=1), -1),
        "answer": np.where(known, np.stack([start, end], axis=1), -1),
        "noise": generator.random(rows),
        "group": 4,
        "group_right": generator.integers(0, 5, rows),
    }


def apply(rule, values, **hyper) -> np.ndarray:
    return np.asarray(rule(signals(rule, values), **hyper).token_advantage)


def test_some_rules_declare_each_property():
    assert len(NEUTRAL) >= 2 and len(KEEPS_SIGN) >= 2


@pytest.mark.parametrize("rule", NEUTRAL, ids=lambda rule: rule.name)
@pytest.mark.parametrize("seed", range(5))
def test_neutral_rules_leave_the_advantage_where_teacher_and_student_agree(rule, seed):
    values = random_values(seed)
    same = values["student_logprobs"]
    values |= {"teacher_logprobs": same, "negative_logprobs": np.stack([same, same])}
    expected = np.float32(values["advantage"])[:, None] * values["mask"]
    np.testing.assert_array_equal(apply(rule, values), expected)


@pytest.mark.parametrize("rule", KEEPS_SIGN, ids=lambda rule: rule.name)
@pytest.mark.parametrize("seed", range(5))
def test_rules_that_keep_the_sign_never_turn_it(rule, seed):
    values = random_values(seed)
    result, sign = np.sign(apply(rule, values)), np.sign(values["advantage"])[:, None]
    assert ((result == 0) | (result == sign)).all()


@every_rule
@pytest.mark.parametrize("seed", range(3))
def test_padding_changes_nothing_and_has_no_credit(rule, seed):
    values = random_values(seed)
    junk = {
        name: np.where(values["mask"], value, 77.0)
        for name, value in values.items()
        if name.endswith(("_logprobs", "_entropy"))
    }
    result, other = (rule(signals(rule, values | change)) for change in ({}, junk))
    assert jax.tree.all(jax.tree.map(np.array_equal, vars(result), vars(other)))
    assert not np.asarray(result.token_advantage)[~values["mask"]].any()


@every_rule
@pytest.mark.parametrize("seed", range(3))
def test_credit_follows_the_rows(rule, seed):
    values, order = random_values(seed), np.random.default_rng(seed).permutation(4)
    moved = {name: np.take(values[name], order, axes.index("N")) for name, axes in AXES.items()} | {
        name: values[name] for name in ("step", "group")
    }
    np.testing.assert_array_equal(apply(rule, moved), apply(rule, values)[order])


@every_rule
def test_no_gradient_flows_into_student_or_teacher(rule):
    values = signals(rule, random_values(3))
    names = ("student_logprobs", "teacher_logprobs", "negative_logprobs", "student_entropy", "teacher_entropy")

    def total(arrays):
        return jnp.sum(rule(values.replace(**arrays)).token_advantage ** 2)

    for gradient in jax.grad(total)({name: getattr(values, name) for name in names}).values():
        np.testing.assert_array_equal(gradient, 0.0)


@every_rule
@pytest.mark.parametrize("mask", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_extremes_are_finite(rule, mask):
    for advantage in (-2.0, 0.0, 2.0):
        for teacher in (-1e4, 1e4, -1.0):
            values = random_values(0, rows=1, length=2) | {"advantage": [advantage], "mask": [mask]}
            values |= {"teacher_logprobs": [[teacher] * 2], "student_entropy": [[0.0, 1e4]]}
            result = rule(signals(rule, values))
            assert all(np.isfinite(value).all() for value in (result.token_advantage, *result.metrics.values()))


def needs_teacher(rule, values, **hyper) -> np.ndarray:
    """Which rows need a teacher, from the signals that are known on the host before its pass."""
    known = Signals(**{name: np.float32(values[name]) for name in KNOWN_BEFORE})
    return rule.needs_teacher(known, Hyper(**rule.defaults | hyper))


@every_rule
def test_leaving_out_the_rows_that_need_no_teacher_is_exact(rule):
    """With the defaults, and with each hyper-parameter at 0 and at 1: the credit of all rows is the same to the bit."""
    variants = [{}] + [{name: type(value)(to)} for name, value in rule.defaults.items() for to in (0, 1)]
    for number, hyper in enumerate(variants):
        for seed in (2 * number, 2 * number + 1):
            values = random_values(seed)
            needed = needs_teacher(rule, values, **hyper)
            left_out = {
                "teacher_logprobs": np.where(needed[:, None], values["teacher_logprobs"], values["student_logprobs"]),
                "teacher_entropy": values["teacher_entropy"] * needed[:, None],
                "scored": needed,
                "has_negative": values["has_negative"] & needed,
                "quoted": np.where(needed[:, None], values["quoted"], -1),
            }
            np.testing.assert_array_equal(apply(rule, values, **hyper), apply(rule, values | left_out, **hyper))


@every_rule
def test_declarations_fit_together(rule):
    asked = needs_teacher(rule, random_values(0))
    assert not (asked.any() and rule.context == "none")
    assert bool(rule.negatives) == bool(rule.negative_count)
    assert rule.distill is None or rule.context != "none"


# ---------------------------------------------------------------- AMR-SD


@pytest.mark.parametrize("seed, lam, gamma, tau", [(0, 0.2, 0.1, 0.2), (1, 2.0, 0.0, 0.0), (2, 0.5, 1.5, 4.0)])
def test_amrsd_amplifies_within_its_bound(seed, lam, gamma, tau):
    values = random_values(seed) | {"step": 0}
    size = np.abs(apply(credit.get("amrsd"), values, lam=lam, gamma=gamma, tau=tau))
    base = np.abs(np.float32(values["advantage"]))[:, None] * values["mask"]
    assert (size >= base).all() and (size > base).any() == (tau < 4)
    assert (size <= base * (1 + max(lam, gamma) * (5.0 - tau)) * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    "step, hyper", [(0, {"lam": 0.0, "gamma": 0.0}), (0, {"tau": 5.0}), (0, {"tau": 9.0}), (50, {}), (75, {})]
)
def test_amrsd_switched_off_is_grpo_to_the_last_bit(step, hyper):
    rule, values = credit.get("amrsd"), random_values(11) | {"step": step}
    np.testing.assert_array_equal(apply(rule, values, **hyper), apply(credit.get("grpo"), values))
    assert not needs_teacher(rule, values, **hyper).any()


# ---------------------------------------------------------------- SC-GRPO, OPPO


def test_the_estimate_of_a_divergence_has_its_mean():
    """Over tokens of S with probabilities 1/2, 1/3, 1/6, for T with 1/6, 1/3, 1/2."""
    student, teacher = np.array([1 / 2, 1 / 3, 1 / 6]), np.array([1 / 6, 1 / 3, 1 / 2])
    estimate = divergence_estimate(jnp.log(teacher / student)[None])[0]
    assert (estimate >= 0).all()
    np.testing.assert_allclose((student * estimate).sum(), (teacher * np.log(teacher / student)).sum(), rtol=1e-5)


def test_the_changes_of_a_belief_sum_to_its_end():
    """Evidence log 3, twice, from a belief of 1/2: 3/4, then 9/10."""
    values = random_values(0, rows=1, length=2) | {"advantage": [1.0], "mask": np.ones((1, 2)), "group_right": [2.0]}
    values |= {"teacher_logprobs": values["student_logprobs"] + LOG3}
    np.testing.assert_allclose(apply(credit.get("oppo"), values)[0, :2], [0.25, 0.15], rtol=1e-5)


# ---------------------------------------------------------------- AntiSD


def test_the_gate_learns_its_baseline_and_switches_with_hysteresis():
    rule, gates = credit.get("antisd"), []
    memory = rule.memory
    for entropy in (1.0, 3.0, 2.0, 5.0, 2.0, 1.99, 2.0, 1.9, 1.85, 1.9, np.nan, 2.1):  # the baseline is 2
        unknown = np.isnan(entropy)
        values = random_values(0) | {"scored": np.full(4, not unknown), "memory": memory}
        result = rule(signals(rule, values | {"teacher_entropy": np.full((4, 6), 0.0 if unknown else entropy)}))
        memory = result.memory
        gates.append(int(result.metrics["gate"]))
    assert gates == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert memory.tolist() == [1, 3, 2, 5, 2, 5, 1]


def test_how_many_failures_are_marked_and_how_much_of_them_is_spared():
    """One of two failures has a disputed token, its third, which two of the nine tokens precede. A success does not count."""
    values = dict(step=0, reward=[0.0, 0.0, 1.0], advantage=[-0.5, -0.5, 1.0], mask=np.ones((3, 3)))
    values |= dict(student_logprobs=np.zeros((3, 3)), teacher_logprobs=[[0, 0, -0.3], [0, 0, 0], [0, 0, -0.3]])
    metrics = credit.get("prefix_credit")(signals(credit.get("prefix_credit"), values)).metrics
    assert metrics == pytest.approx({"marked": 1 / 2, "paid": 2 / 9})


# ---------------------------------------------------------------- from a rule to the credit of a step


def test_credit_outside_of_the_mask_is_0_whatever_a_rule_returns():
    rollouts = tiny_rollouts([True, False], length=2, mask=np.float32([[1, 0], [0, 0]]))
    zeros = np.zeros((2, 2), np.float32)
    logprobs = LogProbs(
        zeros, zeros, zeros, zeros, np.zeros(2, bool), np.zeros((0, 2, 2), np.float32), np.zeros((0, 2), bool)
    )

    def share(s):
        return credit.TokenCredit(s.sequence_advantage / s.mask.sum(axis=1, keepdims=True) * s.mask, {})

    result = assign(credit.Rule("share", share), {}, 0, np.float32([1, -1]), rollouts, logprobs, group=2)
    np.testing.assert_array_equal(result.token_advantage, [[1, 0], [0, 0]])


def test_a_step_s_credit_has_the_rule_s_metrics_and_the_mean_gaps():
    """Half of the annealing is done. Row 0 is right, with gaps 1.2, .1 and padding; row 1 is wrong; row 2 was not scored."""
    rollouts = tiny_rollouts([True, False, False], length=3, mask=np.float32([[1, 1, 0], [1, 0, 0], [1, 1, 1]]))
    student, teacher = np.zeros((2, 3, 3), np.float32)
    teacher[0], teacher[1, 0], teacher[2] = [1.2, 0.1, 9.9], -2.0, 5.0
    scored = np.array([True, True, False])
    logprobs = LogProbs(
        student, teacher, student, student, scored, np.zeros((0, 3, 3), np.float32), np.zeros((0, 3), bool)
    )
    rule = credit.get("amrsd")
    result = assign(rule, rule.defaults, 25, np.float32([1, -1, 0]), rollouts, logprobs, group=3)
    np.testing.assert_allclose(result.token_advantage, [[1.1, 1, 0], [-1.09, 0, 0], [0, 0, 0]], rtol=1e-6)
    assert result.metrics == pytest.approx(
        {
            "delta": (0.1 + 0.09 + 3 * 0.48) / 6,
            "amplified": 5 / 6,
            "lam": 0.1,
            "gamma": 0.05,
            "gap_correct": 0.65,
            "gap_failed": -2,
        }
    )
    assert result.memory == ()
    failed = tiny_rollouts([False] * 3, length=3)
    assert (
        assign(rule, rule.defaults, 0, np.zeros(3, np.float32), failed, logprobs, group=3).metrics["gap_correct"]
        is None
    )


def test_rules_count_the_tokens_that_the_loss_counts():
    """RG-OPD takes a mean over the tokens that agree: all those of the step, or those of rows that were not cut off."""
    rollouts = tiny_rollouts([True, True], length=2, finish_reason=("stop", "length"))
    student = np.zeros((2, 2), np.float32)
    teacher = np.float32([[0.5, -0.5], [-0.5, -0.5]])
    none = np.zeros((0, 2, 2), np.float32), np.zeros((0, 2), bool)
    logprobs, rule = LogProbs(student, teacher, student, student, np.ones(2, bool), *none), credit.get("rg_opd")
    for mask_truncated, first in ((False, 0.5 * 4), (True, 0.5 * 2)):
        found = assign(
            rule, rule.defaults, 0, np.ones(2, np.float32), rollouts, logprobs, group=2, mask_truncated=mask_truncated
        )
        assert found.token_advantage.tolist() == [[first, 0], [0, 0]]


def test_a_place_is_not_exchanged_with_a_row_that_is_not_trained():
    """Three failures quote their token 0, 2 and 1; the last one was cut off, and gives no place and takes none."""
    mask = np.float32([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    values = dict(step=0, advantage=[-1.0] * 3, reward=[0.0] * 3, mask=mask, noise=[0.1, 0.2, 0.3])
    values["quoted"] = np.int32([[0, 1], [2, 3], [1, 2]])
    rule = credit.get("shuffled_blame")
    found = np.asarray(rule(signals(rule, values)).token_advantage)
    assert [int(np.argmax(row < 0)) for row in found[:2]] == [2, 0] and not found[2:].any()


def test_memory_and_extras_reach_the_rule():
    def counting(s, *, scale=1.0):
        return credit.TokenCredit(scale * s.extras["grade"][:, None] * s.mask, memory=s.memory + 1)

    rule = credit.Rule("counting", counting, memory=(0.0, 5.0))
    rollouts = tiny_rollouts([True], length=2, extras={"grade": np.float32([0.5])})
    nothing = np.zeros((1, 2), np.float32)
    logprobs = LogProbs(*[nothing] * 4, np.zeros(1, bool), np.zeros((0, 1, 2), np.float32), np.zeros((0, 1), bool))
    memory = ()
    for step in range(2):
        result = assign(rule, {"scale": 3.0}, step, np.ones(1, np.float32), rollouts, logprobs, group=1, memory=memory)
        memory = result.memory
    assert result.token_advantage.tolist() == [[1.5, 1.5]] and memory == (2.0, 7.0)


# ---------------------------------------------------------------- the sequence-level advantage


def test_group_advantage_by_hand():
    reward = np.float32([1, 0, 0, 0, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    plain = group_advantage(reward, 4, normalize=False)
    scaled = group_advantage(reward, 4, normalize=True)
    expected = np.array([0.75, -0.25, -0.25, -0.25])
    np.testing.assert_allclose(plain[:4], expected, rtol=1e-6)
    np.testing.assert_allclose(scaled[:4], expected / np.sqrt(3 / 16), rtol=1e-4)
    assert not plain[4:].any() and not scaled[4:].any()
    assert group_advantage(np.float32([0.3]), 1, normalize=True).tolist() == [0.0]
    assert plain.dtype == scaled.dtype == np.float32
    sample = group_advantage(
        reward, 4, normalize=True, sample_std=True
    )  # torch.std's: 1.5 and not 1.732 for one of four
    np.testing.assert_allclose(sample[:4], [1.5, -0.5, -0.5, -0.5], rtol=1e-4)
    assert group_advantage(np.float32([1, 0]), 2, normalize=True, sample_std=True)[0] == pytest.approx(0.7071, rel=1e-4)
    assert group_advantage(np.float32([0.3]), 1, normalize=True, sample_std=True).tolist() == [0.0]


@pytest.mark.parametrize(
    "baseline, expected, deviation",
    [
        # group 0 has rewards 1 0 0 0 and mean 1/4, group 1 1 1 0 0 and mean 1/2, group 2 equal rewards
        ("group", [[3 / 4, -1 / 4, -1 / 4, -1 / 4], [1 / 2, 1 / 2, -1 / 2, -1 / 2], [0, 0, 0, 0]], None),
        # the others' means: 0 or 1/3; 1/3 or 2/3; equal
        ("leave_one_out", [[1, -1 / 3, -1 / 3, -1 / 3], [2 / 3, 2 / 3, -2 / 3, -2 / 3], [0, 0, 0, 0]], None),
        # seven of twelve are right: the mean is 7/12, the deviation sqrt(7/12 5/12)
        ("batch", [[5 / 12, *[-7 / 12] * 3], [5 / 12, 5 / 12, -7 / 12, -7 / 12], [5 / 12] * 4], np.sqrt(35) / 12),
        ("none", [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], np.sqrt(35) / 12),
    ],
)
def test_group_advantage_with_other_baselines(baseline, expected, deviation):
    reward = np.float32([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1])
    plain = group_advantage(reward, 4, normalize=False, baseline=baseline)
    np.testing.assert_allclose(plain, np.ravel(expected), rtol=1e-6)
    assert plain.dtype == np.float32
    if deviation:
        scaled = group_advantage(reward, 4, normalize=True, baseline=baseline)
        np.testing.assert_allclose(scaled, np.ravel(expected) / deviation, rtol=1e-5)
    assert group_advantage(np.float32([0.3]), 1, normalize=False, baseline=baseline)[0] == np.float32(
        0.3 if baseline == "none" else 0
    )
    equal = group_advantage(np.full(6, 0.1, np.float32), 2, normalize=False, baseline=baseline)
    assert equal.any() == (baseline == "none")


def test_overlong_penalty_by_hand():
    lengths = np.array([10.0, 80.0, 90.0, 100.0, 120.0])
    np.testing.assert_allclose(overlong_penalty(lengths, longest=100, buffer=20), [0, 0, -0.5, -1, -1])


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'amrds'.*'amrsd'"):
        credit.get("amrds")
