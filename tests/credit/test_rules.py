"""Every registered rule: hand-worked numbers, and the properties of a credit rule. A rule without them fails here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import credit
from amrsd_jax.credit.base import group_advantage, overlong_penalty

MULTIPLICATIVE = {"grpo", "amrsd", "rlsd", "rlrt"}  # keep the sign of A, and give 0 where it is 0
PURE = MULTIPLICATIVE | {"hybrid", "masked_blame", "prefix_credit"}  # are A where teacher and student agree
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
    "scale_failures": [
        ([-9.0, 2.0], [[5.0], [5.0]], 0, {}, [[-1.0], [2.0]]),
        ([-1.0], [[0.0]], 0, {"scale": 0.5}, [[-0.5]]),
    ],
    "drop_failures": [([-9.0, 2.0, 0.0], [[5.0], [5.0], [5.0]], 0, {}, [[0.0], [2.0], [0.0]])],
}


def inputs_of(rule, advantage, given):
    """What the rule reads besides: as given, or rewards that fit the advantages and errors at the second token."""
    rows = len(advantage)
    usual = {"reward": (np.asarray(advantage) > 0) * 1.0, "first_error": np.tile([1, 2], (rows, 1))}
    kinds = {"reward": jnp.float32, "first_error": jnp.int32}
    return {name: jnp.asarray(given.get(name, usual[name]), kinds[name]) for name in rule.inputs}


def apply(rule, advantage, gap, step=0, mask=None, **hyper):
    gap = jnp.asarray(gap, jnp.float32)
    student = jnp.full(gap.shape, -1.0)
    mask = jnp.ones(gap.shape) if mask is None else jnp.asarray(mask, jnp.float32)
    inputs = inputs_of(rule, advantage, hyper)
    hyper = {name: value for name, value in hyper.items() if name not in inputs}
    return rule(jnp.asarray(advantage, jnp.float32), student, student + gap, mask, step=step, **inputs, **hyper)


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
        return jnp.sum(rule(advantage, student, teacher, mask, step=0, **inputs_of(rule, advantage, {}))[0] ** 2)

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
    reward = inputs_of(rule, advantage, {}).get("reward", (advantage > 0) * 1.0)
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


# ---------------------------------------------------------------- the shared base


def test_group_advantage_by_hand():
    reward = jnp.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    plain = group_advantage(reward, normalize=False)
    np.testing.assert_allclose(plain[0], [0.75, -0.25, -0.25, -0.25], rtol=1e-6)
    scaled = group_advantage(reward, normalize=True)
    np.testing.assert_allclose(scaled[0], np.array([0.75, -0.25, -0.25, -0.25]) / np.sqrt(3 / 16), rtol=1e-4)
    np.testing.assert_array_equal(plain[1:], 0.0)
    np.testing.assert_array_equal(scaled[1:], 0.0)
    np.testing.assert_array_equal(group_advantage(jnp.array([[0.3]]), normalize=True), 0.0)


def test_overlong_penalty_by_hand():
    lengths = np.array([10.0, 80.0, 90.0, 100.0, 120.0])
    np.testing.assert_allclose(overlong_penalty(lengths, longest=100, buffer=20), [0, 0, -0.5, -1, -1])


def test_unknown_rules_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'amrsd'"):
        credit.get("amrds")
