"""Losses and reductions against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.learning import losses

MASK = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
VALUES = jnp.array([[1.0, 2.0, 3.0, 4.0], [10.0, 99.0, 99.0, 99.0], [99.0, 99.0, 99.0, 99.0]])


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("sequence_mean", (2.5 + 10.0) / 2),  # the empty row is no row
        ("token_mean", 20.0 / 5),
        ("constant", 20.0 / (8 * 3)),
    ],
)
def test_reductions_by_hand(mode, expected):
    weight = losses.reduction_weights(MASK, mode, constant_length=8)
    np.testing.assert_allclose(jnp.sum(weight * VALUES), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["sequence_mean", "token_mean", "constant"])
def test_the_reduction_of_nothing_is_zero(mode):
    assert not np.asarray(losses.reduction_weights(0 * MASK, mode, constant_length=8)).any()


def surrogate(ratio, advantage):
    return losses.clipped_surrogate(
        jnp.log(jnp.array([[ratio]])), jnp.array([[advantage]]), clip_low=0.2, clip_high=0.28
    )


@pytest.mark.parametrize(
    "ratio, advantage, loss, low, high",
    [
        (1.0, 2.0, -2.0, 0, 0),
        (1.5, 1.0, -1.28, 0, 1),  # the high bound holds
        (1.5, -1.0, 1.5, 0, 0),
        (0.5, -1.0, 0.8, 1, 0),  # the low bound holds
        (0.5, 1.0, -0.5, 0, 0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, low, high):
    value, metrics = surrogate(ratio, advantage)
    np.testing.assert_allclose(value[0, 0], loss, rtol=1e-5)
    assert (int(metrics["clip_frac_low"][0, 0]), int(metrics["clip_frac_high"][0, 0])) == (low, high)


@pytest.mark.parametrize(
    "ratio, advantage, slope", [(1.5, 1.0, 0.0), (0.5, -1.0, 0.0), (1.1, 1.0, -1.1), (1.5, -1.0, 1.5)]
)
def test_clipping_takes_the_gradient_away(ratio, advantage, slope):
    def loss(log_ratio):
        return losses.clipped_surrogate(log_ratio, jnp.array([[advantage]]), clip_low=0.2, clip_high=0.28)[0].sum()

    np.testing.assert_allclose(jax.grad(loss)(jnp.log(jnp.array([[ratio]]))), slope, rtol=1e-5)


@pytest.mark.parametrize("bounds", [dict(clip_low=0.0, clip_high=0.3), dict(clip_low=0.3, clip_high=0.0)])
@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_a_bound_of_zero_leaves_a_first_update_whole(bounds, advantage):
    """Its ratio is 1, which is the bound and not beyond it."""

    def loss(log_ratio):
        return losses.clipped_surrogate(log_ratio, jnp.array([[advantage]]), **bounds)[0].sum()

    np.testing.assert_array_equal(jax.grad(loss)(jnp.zeros((1, 1))), [[-advantage]])


@pytest.mark.parametrize(
    "ratio, advantage, loss, slope",
    [
        (10.0, -1.0, 3.0, 0.0),
        (100.0, -2.0, 6.0, 0.0),
        (2.5, -1.0, 2.5, 2.5),
        (0.5, -1.0, 0.8, 0.0),
        (10.0, 1.0, -1.28, 0.0),
    ],
)
def test_the_dual_clip_bounds_what_blame_can_cost(ratio, advantage, loss, slope):
    def value(log_ratio, clip_dual=3.0):
        bounds = dict(clip_low=0.2, clip_high=0.28, clip_dual=clip_dual)
        return losses.clipped_surrogate(log_ratio, jnp.array([[advantage]]), **bounds)[0].sum()

    at = jnp.log(jnp.array([[ratio]]))
    np.testing.assert_allclose([value(at), jax.grad(value)(at)[0, 0]], [loss, slope], rtol=1e-5)
    np.testing.assert_allclose(value(at, clip_dual=0.0), surrogate(ratio, advantage)[0][0, 0])


def gradient(token_advantage, level, reduction="sequence_mean"):
    """The gradient of the surrogate with respect to the log-probabilities of one row, at a ratio of 1."""
    logprobs, mask = jnp.array([[-1.0, -2.0, -0.5, -3.0]]), jnp.ones((1, 4))

    def loss(current):
        ratio = losses.log_ratio(current, logprobs, mask, level)
        value, _ = losses.clipped_surrogate(ratio, jnp.array([token_advantage]), clip_low=3e-4, clip_high=4e-4)
        return jnp.sum(value * losses.reduction_weights(mask, reduction))

    return jax.grad(loss)(logprobs)[0]


def test_a_ratio_per_sequence_keeps_each_token_s_own_credit():
    np.testing.assert_allclose(4 * gradient([1.0, 1.0, 1.0, 7.0], "sequence"), [-1, -1, -1, -7], rtol=1e-6)
    np.testing.assert_allclose(4 * gradient([2.0] * 4, "sequence"), [-2] * 4, rtol=1e-6)


def test_ratios_by_hand():
    logprobs, old = jnp.array([[0.3, 0.6, 9.0], [-0.2, 0.4, 0.6]]), jnp.zeros((2, 3))
    mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(losses.log_ratio(logprobs, old, mask, "token"), logprobs)
    np.testing.assert_allclose(
        losses.log_ratio(logprobs, old, mask, "sequence"), [[0.45] * 3, [0.8 / 3] * 3], rtol=1e-6
    )
    slope = jax.grad(lambda current: losses.log_ratio(current, old, mask, "sequence")[0, 0])(logprobs)
    np.testing.assert_array_equal(slope, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    empty = losses.log_ratio(logprobs, old, 0 * mask, "sequence")
    np.testing.assert_array_equal(empty, 0.0)


def test_estimates_of_the_kl_by_hand():
    value = losses.k3(jnp.log(jnp.array([[0.5, 0.2]])), jnp.log(jnp.array([[0.25, 0.2]])))
    np.testing.assert_allclose(value, [[0.5 - 1 + np.log(2), 0.0]], atol=1e-6)
    np.testing.assert_allclose(losses.k2(jnp.array([[-1.0]]), jnp.array([[-3.0]])), [[2.0]])


def test_importance_weight_by_hand():
    trainer, sampler = jnp.log(jnp.array([[0.3, 0.9]])), jnp.log(jnp.array([[0.2, 0.1]]))
    np.testing.assert_allclose(losses.importance_weight(trainer, sampler, cap=2.0), [[1.5, 2.0]], rtol=1e-6)


def test_extreme_log_probabilities_stay_finite():
    far, zero = jnp.array([[-1e4, 1e4, 0.0]]), jnp.zeros((1, 3))
    for advantage in (-1.0, 0.0, 1.0):
        ratio = losses.log_ratio(far, zero, zero + 1, "token")
        value, metrics = losses.clipped_surrogate(ratio, zero + advantage, clip_low=0.2, clip_high=0.2)
        assert np.isfinite(value).all() and np.isfinite(metrics["kl_old_new"]).all()
    assert np.isfinite(losses.k3(far, zero)).all()
    assert np.isfinite(losses.importance_weight(far, zero, cap=2.0)).all()
