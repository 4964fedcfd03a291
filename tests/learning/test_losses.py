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


def test_reduction_of_nothing_is_finite_and_unknown_ones_are_refused():
    for mode in losses.REDUCTIONS:
        assert not np.asarray(losses.reduction_weights(0 * MASK, mode, constant_length=8)).any()
    with pytest.raises(ValueError, match="expected one of sequence_mean, token_mean, constant"):
        losses.reduction_weights(MASK, "mean")


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
    value, monitors = surrogate(ratio, advantage)
    np.testing.assert_allclose(value[0, 0], loss, rtol=1e-5)
    assert (int(monitors["clip_low"][0, 0]), int(monitors["clip_high"][0, 0])) == (low, high)


@pytest.mark.parametrize(
    "ratio, advantage, slope", [(1.5, 1.0, 0.0), (0.5, -1.0, 0.0), (1.1, 1.0, -1.1), (1.5, -1.0, 1.5)]
)
def test_clipping_takes_the_gradient_away(ratio, advantage, slope):
    def loss(logp):
        return losses.clipped_surrogate(logp, jnp.array([[advantage]]), clip_low=0.2, clip_high=0.28)[0].sum()

    np.testing.assert_allclose(jax.grad(loss)(jnp.log(jnp.array([[ratio]]))), slope, rtol=1e-5)


def test_ratios_by_hand():
    logp, old = jnp.array([[0.3, 0.6, 9.0], [-0.2, 0.4, 0.6]]), jnp.zeros((2, 3))
    mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(losses.log_ratio(logp, old, mask, "token"), logp)
    np.testing.assert_allclose(losses.log_ratio(logp, old, mask, "sequence"), [[0.45] * 3, [0.8 / 3] * 3], rtol=1e-6)
    empty = losses.log_ratio(logp, old, 0 * mask, "sequence")
    np.testing.assert_array_equal(empty, 0.0)


def test_k3_by_hand():
    value = losses.k3(jnp.log(jnp.array([[0.5, 0.2]])), jnp.log(jnp.array([[0.25, 0.2]])))
    np.testing.assert_allclose(value, [[0.5 - 1 + np.log(2), 0.0]], atol=1e-6)


def test_importance_weight_by_hand():
    trainer, sampler = jnp.log(jnp.array([[0.3, 0.9]])), jnp.log(jnp.array([[0.2, 0.1]]))
    np.testing.assert_allclose(losses.importance_weight(trainer, sampler, cap=2.0), [[1.5, 2.0]], rtol=1e-6)


def test_extreme_log_probabilities_stay_finite():
    far, zero = jnp.array([[-1e4, 1e4, 0.0]]), jnp.zeros((1, 3))
    for advantage in (-1.0, 0.0, 1.0):
        ratio = losses.log_ratio(far, zero, zero + 1, "token")
        value, monitors = losses.clipped_surrogate(ratio, zero + advantage, clip_low=0.2, clip_high=0.2)
        assert np.isfinite(value).all() and np.isfinite(monitors["kl"]).all()
    assert np.isfinite(losses.k3(far, zero)).all()
    assert np.isfinite(losses.importance_weight(far, zero, cap=2.0)).all()
