"""Rotary scaling: the frequencies of `transformers` in plain NumPy, and how a scaling is read."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.policy.architecture import PRESETS
from amrsd_jax.policy.rope import KINDS, LinearScaling, Llama3Scaling, YarnScaling, parse_scaling, rotate, rotation

SIZE = 128
PAIRS = np.arange(SIZE // 2)


def yarn(theta, factor, original, fast=32.0, slow=1.0, truncate=True):
    """States `_compute_yarn_parameters` pair by pair, in float64."""
    low, high = (SIZE * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (fast, slow))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, SIZE - 1)
    frequencies = []
    for pair in PAIRS:
        own = theta ** (-2 * pair / SIZE)
        scaled = min(max((pair - low) / (high - low), 0), 1)
        frequencies.append(own / factor * scaled + own * (1 - scaled))
    return np.array(frequencies)


def measured(theta, scaling):
    """Returns the frequencies and the magnitude that `rotation` applies."""
    cos, sin = (np.asarray(a, np.float64) for a in rotation(jnp.array([[0, 1]]), SIZE, theta, scaling))
    return np.arctan2(sin[0, 1, 0], cos[0, 1, 0]), cos[0, 0, 0]


@pytest.mark.parametrize(
    "theta, scaling, expected, magnitude",
    [
        (1e6, YarnScaling(4.0, 32768), yarn(1e6, 4, 32768), 0.1 * math.log(4) + 1),
        (1e4, YarnScaling(16.0, 4096, 16.0, 2.0, 1.5, False), yarn(1e4, 16, 4096, 16, 2, False), 1.5),
        (1e6, YarnScaling(1.0, 32768), yarn(1e6, 1, 32768), 1.0),
        (1e4, LinearScaling(4.0), 1e4 ** (-2 * PAIRS / SIZE) / 4, 1.0),
    ],
)
def test_frequencies_are_those_of_transformers(theta, scaling, expected, magnitude):
    frequencies, magnitudes = measured(theta, scaling)
    np.testing.assert_allclose(frequencies, expected, rtol=2e-5)
    np.testing.assert_allclose(magnitudes, magnitude, rtol=1e-6)


def test_a_scaling_survives_its_json():
    for scaling in (LinearScaling(2.0), Llama3Scaling(32.0, 1.0, 4.0, 8192), YarnScaling(4.0, 32768, truncate=False)):
        assert parse_scaling(scaling.json(), 99, "x") == scaling
    assert parse_scaling({"type": "yarn", "factor": 4, "rope_theta": 1e6}, 40960, "x") == YarnScaling(4.0, 40960)
    assert parse_scaling({"rope_type": "default"}, 99, "x") is parse_scaling({}, 99, "x") is None


def test_a_factor_without_a_kind_is_refused():
    assert parse_scaling({"rope_theta": 1e6, "factor": None}, 99, "place") is None
    with pytest.raises(ValueError, match="place.rope_type = None: .*yarn"):
        parse_scaling({"factor": 2.0}, 99, "place")


def test_what_makes_a_scaling_divide_by_zero_is_named():
    with pytest.raises(ValueError, match=r"architecture.rope_theta = 1.0: expected a number above 1"):
        dataclasses.replace(PRESETS["tiny"], rope_theta=1.0, rope_scaling=YarnScaling(4.0, 32768))
    with pytest.raises(ValueError, match=r"x.high_freq_factor = 4: expected more than low_freq_factor = 4"):
        parse_scaling(
            Llama3Scaling(32.0, 4.0, 4.0, 8192).json() | {"low_freq_factor": 4, "high_freq_factor": 4}, 99, "x"
        )


def test_longest_rows():
    assert LinearScaling(4.0).longest(4096) == 16384
    assert YarnScaling(4.0, 32768).longest(40960) == 131072 and YarnScaling(2.0, 8192).longest(40960) == 40960
    assert Llama3Scaling(32.0, 1.0, 4.0, 8192).longest(131072) == 131072


@pytest.mark.parametrize("value", ["4", None, True, float("nan"), float("inf"), -1, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_factor_is_named(kind, value):
    rest = (
        {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
        if kind == "llama3"
        else {}
    )
    with pytest.raises(ValueError, match=r"place.factor"):
        parse_scaling({"rope_type": kind, "factor": value, **rest}, 99, "place")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_form_for_tpus_rotates_as_that_of_pairs(dtype):
    """Values and gradients; the products of whole heads only move entries, so that both forms make the same sums."""
    x, g = (jax.random.normal(jax.random.key(i), (2, 5, 3, 16), dtype) for i in range(2))

    def form(whole):
        tables = rotation(jnp.arange(5)[None] * 7, 16, 1e4, YarnScaling(4.0, 64), whole=whole)
        return jax.vjp(lambda x: rotate(x, tables), x)

    (pairs, back), (whole, back_whole) = form(False), form(True)
    tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
    for a, b in ((pairs, whole), (*back(g), *back_whole(g))):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=tolerance, atol=tolerance)
