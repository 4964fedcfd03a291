"""Sampling distributions: hand-worked truncations, agreement with a sort, the right frequencies, no shared noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import rng
from amrsd_jax.sampling.warpers import sample, truncate

PROBABILITIES = jnp.log(jnp.array([0.5, 0.2, 0.15, 0.1, 0.05]))


@pytest.mark.parametrize(
    "top_k, top_p, kept",
    [
        (0, 1.0, 5),
        (2, 1.0, 2),
        (1, 1.0, 1),
        (9, 1.0, 5),
        (0, 0.5, 1),  # the first alone reaches it
        (0, 0.51, 2),
        (0, 0.7001, 3),
        (0, 1e-6, 1),
        (3, 0.7, 2),  # after top-3 the masses are .588 .235 .176
    ],
)
def test_truncation_by_hand(top_k, top_p, kept):
    out = truncate(PROBABILITIES[None], jnp.array([top_k]), jnp.array([top_p]))
    assert np.isfinite(out[0]).tolist() == [i < kept for i in range(5)]
    np.testing.assert_array_equal(out[0, :kept], PROBABILITIES[:kept])


def test_ties_with_the_last_kept_token_are_kept():
    out = truncate(jnp.array([[1.0, 0.0, 0.0, -1.0]]), jnp.array([2]), jnp.array([1.0]))
    assert np.isfinite(out[0]).tolist() == [True, True, True, False]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.floats(0.01, 1.0))
def test_truncation_is_that_of_a_sort(seed, top_k, top_p):
    logits = np.random.default_rng(seed).normal(size=(1, 30)).astype(np.float32) * 3
    out = truncate(jnp.array(logits), jnp.array([top_k]), jnp.array([top_p], jnp.float32))
    order = np.argsort(-logits[0], kind="stable")[: top_k or 30]
    mass = np.exp(logits[0, order] - logits[0].max())
    before = np.cumsum(mass / mass.sum()) - mass / mass.sum()
    wanted = set(order[before < top_p - 1e-5])
    kept = set(np.flatnonzero(np.isfinite(out[0])).tolist())
    near = set(order[np.abs(before - top_p) < 2e-5].tolist()) if top_p < 1 else set(order.tolist())
    assert wanted <= kept <= wanted | near


def draw(logits, seed, temperature=1.0, top_k=0, top_p=1.0):
    n = logits.shape[0]
    return sample(
        logits,
        jax.random.split(rng.key(seed, "test"), n),
        temperature=jnp.full(n, temperature),
        top_k=jnp.full(n, top_k),
        top_p=jnp.full(n, top_p, jnp.float32),
    )


def test_frequencies_of_a_vocabulary_of_several_blocks():
    """300 tokens, the last block not full: chi-square of 40,000 draws with 299 degrees of freedom (mean 299, sd 24.5)."""
    logits = rng.host(0, "test").normal(size=300).astype(np.float32)
    n = 40_000
    token, logp, _ = draw(jnp.tile(logits, (n, 1)), 0)
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(np.exp(logp), p[token], rtol=1e-4)
    seen = np.bincount(token, minlength=300)
    assert len(seen) == 300 and ((seen - n * p) ** 2 / (n * p)).sum() < 299 + 4 * 24.5


def test_the_most_likely_token_of_several_blocks_is_the_first_of_equals():
    """Not that of the heaviest block: block 0 holds more mass, block 2 the peak, twice."""
    logits = jnp.zeros((1, 300)).at[:, 128:].set(-5.0).at[:, jnp.array([270, 290])].set(1.0)
    assert int(draw(logits, 0, temperature=0.0)[0][0]) == 270


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_follow_the_tempered_distribution(temperature):
    """Temperature 1 samples too: it does not quietly decode greedily."""
    n = 20_000
    token, logp, logp_plain = draw(jnp.tile(PROBABILITIES, (n, 1)), 0, temperature)
    expected = jax.nn.softmax(PROBABILITIES / temperature)
    observed = np.bincount(token, minlength=5) / n
    np.testing.assert_allclose(observed, expected, atol=4 * np.sqrt(0.25 / n))
    np.testing.assert_allclose(logp, np.log(expected)[token], rtol=1e-5)
    np.testing.assert_allclose(logp_plain, PROBABILITIES[token], rtol=1e-5)


def test_log_probability_is_that_of_the_truncated_distribution():
    token, logp, logp_plain = draw(jnp.tile(PROBABILITIES, (500, 1)), 0, top_k=2)
    assert set(token.tolist()) == {0, 1}
    np.testing.assert_allclose(logp, np.log([0.5 / 0.7, 0.2 / 0.7])[token], rtol=1e-5)
    np.testing.assert_allclose(logp_plain, PROBABILITIES[token], rtol=1e-5)


def test_zero_temperature_is_greedy_and_certain():
    logits = jax.random.normal(jax.random.key(0), (50, 9))
    token, logp, _ = draw(logits, 0, temperature=0.0)
    np.testing.assert_array_equal(token, jnp.argmax(logits, axis=-1))
    np.testing.assert_array_equal(logp, 0.0)


def test_settings_are_per_row():
    logits = jnp.tile(PROBABILITIES, (3, 1))
    keys = jax.random.split(rng.key(0, "test"), 3)
    token, logp, _ = sample(
        logits,
        keys,
        temperature=jnp.array([0.0, 1.0, 1.0]),
        top_k=jnp.array([0, 1, 0]),
        top_p=jnp.array([1.0, 1.0, 0.1]),
    )
    assert token.tolist() == [0, 0, 0]
    np.testing.assert_allclose(logp, 0.0, atol=1e-6)


def test_no_sort_of_the_vocabulary():
    def run(logits, keys):
        one = jnp.ones(logits.shape[0])
        return sample(logits, keys, temperature=one, top_k=one.astype(jnp.int32) * 5, top_p=one * 0.9)

    text = jax.jit(run).lower(jnp.zeros((2, 1000)), jax.random.split(rng.key(0, "test"), 2)).as_text()
    assert "stablehlo.sort" not in text and "chlo.top_k" not in text
