"""Every registered rule: hand-worked numbers, and the properties of a credit rule. A rule without them fails here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import credit
from amrsd_jax.credit.base import INPUTS, group_advantage, overlong_penalty

MULTIPLICATIVE = {"grpo", "amrsd", "rlsd", "rlrt", "cepo"}  # keep the sign of A, and give 0 where it is 0
PURE = MULTIPLICATIVE | {
    "rlcsd",
    "antisd",
    "sdpg",
    "hybrid",
    "masked_blame",
    "prefix_credit",
}  # are A where teacher and student agree
E = np.e

# rule -> cases of (advantage [N], gap l_T - l_S [N, T], step, hyper-parameters and inputs, token advantage [N, T])
BY_HAND = {
    "grpo": [([1.5, -0.5], [[3.0, -3.0], [0.0, 9.0]], 7, {}, [[1.5, 1.5], [-0.5, -0.5]])],
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
    # the teacher's contrast e is the gap where the one wrong peer reads like the student (the usual input below)
    "rlcsd": [
        # u = .5 tanh(e / .02) = .25; one token of two is modulated, so each kind's mean counts twice its tokens' share
        ([1.0], [[0.02 * np.arctanh(0.5), 0.0]], 0, {}, [[2.5, 2.0]]),
        ([-1.0], [[0.02 * np.arctanh(0.5), 0.0]], 0, {"eta": 0.5}, [[-1.5, -1.0]]),
        ([0.1, -0.1, 0.0], [[-9.0], [9.0], [9.0]], 0, {}, [[0.0], [0.0], [0.0]]),  # the sign is kept
        ([1.0], [[0.02 * np.arctanh(0.03)]], 0, {}, [[1.0]]),  # u = .015, below delta
        ([1.0], [[9.0]], 0, {"has_negative": [[False]]}, [[1.0]]),
        # wrong peers at e^-1 and 3 e^-1: their mean is 2 e^-1, so with gap log 2 there is no contrast
        (
            [1.0],
            [[np.log(2)]],
            0,
            {"logp_negative": [[[-1.0]], [[np.log(3) - 1]]], "has_negative": [[True]] * 2},
            [[1.0]],
        ),
    ],
    "cepo": [
        ([2.0, -2.0], [[0.1, -0.1], [0.1, -0.1]], 0, {}, [[1 + E**0.1, 1 + E**-0.1], [-1 - E**-0.1, -1 - E**0.1]]),
        ([1.0], [[9.0]], 0, {"eps_w": 0.4}, [[1.2]]),
        ([1.0], [[9.0]], 25, {}, [[1.0]]),
        ([1.0], [[9.0]], 0, {"has_negative": [[False]]}, [[1.0]]),
    ],
    "credit": [
        ([7.0], [[0.5, -2.0]], 9, {}, [[0.5, -2.0]]),
        ([7.0], [[0.5]], 0, {"reward_weight": 1.0, "coef": 0.5}, [[7.25]]),
        # two other prompts at -1 and -3: s = (-1 + .5) - .5 (-2)
        ([0.0], [[0.5]], 0, {"lam": 0.5, "logp_negative": [[[-1.0]], [[-3.0]]], "has_negative": [[True]] * 2}, [[0.5]]),
        ([0.0], [[0.5]], 0, {"lam": 0.5, "has_negative": [[False]]}, [[0.5]]),
    ],
    "antisd": [
        # phi(log 3) = (log 4 - log 2) / 2
        ([1.0, 0.0], [[np.log(3)], [np.log(3)]], 0, {}, [[1 - np.log(2) / 4], [-np.log(2) / 4]]),
        ([1.0], [[np.log(3)]], 0, {"memory": [0.0] * 7}, [[1.0]]),  # the warm-up
        ([1.0], [[np.log(3)]], 0, {"entropy_teacher": [[0.92]]}, [[1.0]]),  # below .93 of the baseline, 1
        ([1.0], [[np.log(3)]], 0, {"entropy_teacher": [[0.94]]}, [[1 - np.log(2) / 4]]),  # between: the gate stays on
        ([1.0], [[np.log(3)]], 0, {"entropy_teacher": [[0.94]], "memory": [1.0] * 5 + [5.0, 0.0]}, [[1.0]]),
    ],
    "sdpo": [([1.0], [[9.0]], 0, {}, [[0.0]]), ([1.0], [[9.0]], 0, {"reward_weight": 0.5}, [[0.5]])],
    "opsd": [([1.0], [[9.0]], 0, {}, [[0.0]]), ([1.0], [[9.0]], 0, {"reward_weight": 0.5}, [[0.5]])],
    "sdpg": [([1.0, -1.0], [[9.0], [9.0]], 0, {}, [[1.0], [-1.0]])],
    "feedback_alignment": [
        ([1.0, 0.0], [[0.5, -2.0], [0.5, -2.0]], 9, {}, [[0.5, -2.0], [0.5, -2.0]]),
        ([1.0], [[0.5]], 0, {"coef": 3.0}, [[1.5]]),
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
    "oracle_first_error": [
        ([-1.0], [[0.0] * 4], 0, {"first_error": [[1, 3]]}, [[0.0, -1.0, -1.0, 0.0]]),
        ([-1.0, 1.0], [[0.0] * 2] * 2, 0, {"first_error": [[-1, -1], [0, 1]]}, [[-1.0, -1.0], [1.0, 1.0]]),
    ],
    "oracle_prefix": [
        ([0.0], [[0.0] * 4], 0, {"reward": [0.0], "first_error": [[2, 3]]}, [[1.0, 1.0, 0.0, 0.0]]),
        ([-0.5], [[0.0] * 4], 0, {"reward": [0.0], "first_error": [[2, 3]], "rest": 1.0}, [[1.0, 1.0, -0.5, -0.5]]),
        ([-0.5], [[0.0] * 2], 0, {"reward": [0.0], "first_error": [[-1, -1]]}, [[-0.5, -0.5]]),
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


def inputs_of(rule, advantage, given, length):
    """What the rule reads besides: as given, or rewards that fit the advantages, errors at the second token, ..."""
    rows = len(advantage)
    usual = {
        "reward": (np.asarray(advantage) > 0) * 1.0,
        "first_error": np.tile([1, 2], (rows, 1)),
        "noise": np.full(rows, 0.3),
        "scored": np.ones(rows, bool),
        "entropy_teacher": np.ones((rows, length)),
        "logp_negative": np.full((1, rows, length), -1.0),
        "has_negative": np.ones((1, rows), bool),
        "memory": [1.0] * 5 + [5.0, 1.0],
    }
    kinds = {"first_error": jnp.int32, "scored": bool, "has_negative": bool}
    return {name: jnp.asarray(given.get(name, usual[name]), kinds.get(name, jnp.float32)) for name in rule.inputs}


def apply(rule, advantage, gap, step=0, mask=None, **hyper):
    gap = jnp.asarray(gap, jnp.float32)
    student = jnp.full(gap.shape, -1.0)
    mask = jnp.ones(gap.shape) if mask is None else jnp.asarray(mask, jnp.float32)
    inputs = inputs_of(rule, advantage, hyper, gap.shape[1])
    hyper = {name: value for name, value in hyper.items() if name not in inputs}
    advantage = jnp.asarray(advantage, jnp.float32)
    credit, metrics = rule(advantage, student, student + gap, mask, step=step, **inputs, **hyper)
    return credit, {name: value for name, value in metrics.items() if name != "memory"}


every_rule = pytest.mark.parametrize("rule", credit.RULES.values(), ids=credit.RULES)


@every_rule
def test_by_hand(rule):
    assert BY_HAND.get(rule.name), f"rule {rule.name!r} has no hand-worked numbers in BY_HAND"
    for advantage, gap, step, hyper, expected in BY_HAND[rule.name]:
        result, _ = apply(rule, advantage, gap, step, **hyper)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def batch(seed, rows=4, length=6):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, length + 1, rows)
    mask = (np.arange(length) < lengths[:, None]).astype(np.float32)
    return generator.choice([-1.3, 0.0, 0.7], rows), generator.normal(0, 2, (rows, length)), mask


@every_rule
@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(0, 60))
def test_teacher_equal_to_student_is_the_base_advantage(rule, seed, step):
    advantage, gap, mask = batch(seed)
    if rule.name in PURE:
        result, _ = apply(rule, advantage, 0 * gap, step, mask)
        np.testing.assert_array_equal(result, np.float32(advantage)[:, None] * mask)


@every_rule
@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_padding_and_order_change_nothing(rule, seed):
    advantage, gap, mask = batch(seed)
    result, metrics = apply(rule, advantage, gap, mask=mask)
    noisy, noisy_metrics = apply(rule, advantage, np.where(mask > 0, gap, 77.0), mask=mask)
    np.testing.assert_array_equal(result, noisy)
    assert jax.tree.map(float, metrics) == pytest.approx(jax.tree.map(float, noisy_metrics))
    assert not np.asarray(result)[mask == 0].any()
    order = np.random.default_rng(seed).permutation(len(advantage))
    moved, _ = apply(rule, advantage[order], gap[order], mask=mask[order])
    np.testing.assert_array_equal(result[order], moved)


@every_rule
@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_sign_and_zero_are_kept(rule, seed):
    advantage, gap, mask = batch(seed)
    if rule.name in MULTIPLICATIVE:
        result, _ = apply(rule, advantage, gap, mask=mask)
        np.testing.assert_array_equal(np.sign(result), np.sign(advantage)[:, None] * mask)


@every_rule
def test_no_gradient_flows_into_student_or_teacher(rule):
    advantage, gap, mask = (jnp.asarray(a, jnp.float32) for a in batch(3))

    def total(student, teacher):
        return jnp.sum(
            rule(advantage, student, teacher, mask, step=0, **inputs_of(rule, advantage, {}, gap.shape[1]))[0] ** 2
        )

    for gradient in jax.grad(total, argnums=(0, 1))(-jnp.ones(gap.shape), gap):
        np.testing.assert_array_equal(gradient, 0.0)


@every_rule
@pytest.mark.parametrize("gap", [-1e4, 1e4, 0.0])
@pytest.mark.parametrize("mask", [[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
def test_extremes_are_finite(rule, gap, mask):
    for advantage in (-2.0, 0.0, 2.0):
        result, metrics = apply(rule, [advantage], [[gap, gap]], mask=mask)
        assert np.isfinite(result).all()
        assert all(np.isfinite(value) for value in metrics.values())


@every_rule
@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.3]))
def test_rows_left_out_by_the_rule_have_the_same_credit_with_any_teacher(rule, seed, step, strength, tau):
    """What makes the savings exact: `needs` may leave out a row only if the teacher cannot matter there."""
    advantage, gap, mask = batch(seed)
    hyper = {"lam": strength, "gamma": strength / 2, "tau": tau} if rule.name == "amrsd" else {}
    reward = (advantage > 0) * 1.0
    left_out = ~np.asarray(rule.needs(advantage, reward, step, **hyper))
    with_teacher, _ = apply(rule, advantage, gap, step, mask, **hyper)
    without, _ = apply(rule, advantage, 0 * gap, step, mask, **hyper)
    np.testing.assert_array_equal(with_teacher[left_out], without[left_out])


# ---------------------------------------------------------------- AMR-SD's own identities


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 2), st.floats(0, 2), st.floats(0, 5))
def test_amrsd_amplifies_within_its_bound(seed, lam, gamma, tau):
    advantage, gap, mask = batch(seed)
    result, _ = apply(credit.get("amrsd"), advantage, gap, mask=mask, lam=lam, gamma=gamma, tau=tau)
    size, base = np.abs(result), np.abs(np.float32(advantage))[:, None] * mask
    assert (size >= base).all()
    assert (size <= base * (1 + max(lam, gamma) * (5.0 - tau)) * (1 + 1e-5)).all()


@pytest.mark.parametrize("hyper", [{"lam": 0.0, "gamma": 0.0}, {"tau": 5.0}, {"tau": 9.0}])
def test_amrsd_switched_off_is_grpo_to_the_last_bit(hyper):
    advantage, gap, mask = batch(11, rows=64, length=40)
    ours, _ = apply(credit.get("amrsd"), advantage, gap, mask=mask, **hyper)
    plain, _ = apply(credit.get("grpo"), advantage, gap, mask=mask)
    np.testing.assert_array_equal(ours, plain)
    assert not credit.get("amrsd").needs(advantage, (advantage > 0) * 1.0, 0, **hyper).any()


def test_amrsd_metrics_by_hand():
    _, metrics = apply(credit.get("amrsd"), [1.0], [[1.2, 0.1, 9.9]], step=25, mask=[[1, 1, 0]])
    assert jax.tree.map(float, metrics) == pytest.approx({"delta": 0.05, "amplified": 0.5, "lam": 0.1, "gamma": 0.05})


# ---------------------------------------------------------------- AntiSD's gate


def test_the_gate_learns_its_baseline_and_switches_with_hysteresis():
    rule = credit.get("antisd")
    memory, gates = jnp.zeros(7), []
    for entropy in (1.0, 3.0, 2.0, 5.0, 2.0, 1.99, 2.0, 1.9, 1.85, 1.9, np.nan, 2.1):  # the baseline is 2
        scored = jnp.array([not np.isnan(entropy)])
        table = jnp.full((1, 2), 0.0 if np.isnan(entropy) else entropy)
        _, metrics = rule(
            jnp.ones(1), jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones((1, 2)), step=0,
            scored=scored, entropy_teacher=table, memory=memory,
        )  # fmt: skip
        memory = metrics["memory"]
        gates.append(int(metrics["gate"]))
    assert gates == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert memory.tolist() == [1, 3, 2, 5, 2, 5, 1]


def test_every_input_is_documented_and_every_memory_has_a_beginning():
    for rule in credit.RULES.values():
        assert set(rule.inputs) <= INPUTS.keys(), rule.name
        assert ("memory" in rule.inputs) == bool(rule.memory)
        assert bool(rule.negatives) == ("logp_negative" in rule.inputs) == ("k" in rule.defaults)


# ---------------------------------------------------------------- the shared base


def test_group_advantage_by_hand():
    reward = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]], np.float32)
    plain = group_advantage(reward, normalize=False)
    np.testing.assert_allclose(plain[0], [0.75, -0.25, -0.25, -0.25], rtol=1e-6)
    scaled = group_advantage(reward, normalize=True)
    np.testing.assert_allclose(scaled[0], np.array([0.75, -0.25, -0.25, -0.25]) / np.sqrt(3 / 16), rtol=1e-4)
    np.testing.assert_array_equal(plain[1:], 0.0)
    np.testing.assert_array_equal(scaled[1:], 0.0)
    np.testing.assert_array_equal(group_advantage(np.array([[0.3]], np.float32), normalize=True), 0.0)
    assert plain.dtype == scaled.dtype == np.float32


def test_overlong_penalty_by_hand():
    lengths = np.array([10.0, 80.0, 90.0, 100.0, 120.0])
    np.testing.assert_allclose(overlong_penalty(lengths, longest=100, buffer=20), [0, 0, -0.5, -1, -1])


def test_unknown_rules_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'amrsd'"):
        credit.get("amrds")
