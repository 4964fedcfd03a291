"""Sampling distributions: hand-worked truncation, agreement with a sort, frequencies, independent noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import rng
from amrsd_jax.sampling import warpers

sample = jax.jit(warpers.sample, static_argnames="absent")


@functools.partial(jax.jit, static_argnames="bits")
def truncate(logits, top_k, top_p, bits=1):
    """The logits of the tokens that are kept, and -inf for the others; digits of `bits` bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warpers, "_reaching", functools.partial(warpers._search, bits=bits))
        lowest = warpers.lowest_kept(logits, jnp.ones(len(logits)), top_k, top_p)
        return jnp.where(logits < lowest[:, None], -jnp.inf, logits)


PROBABILITIES = np.array([0.5, 0.2, 0.15, 0.1, 0.05], np.float32)
LOGITS = jnp.log(PROBABILITIES)


def draw(logits, temperature=1.0, top_k=0, top_p=1.0):
    n = len(logits)
    keys = jax.random.split(rng.key(0, "test"), n)
    rows = (jnp.broadcast_to(jnp.asarray(value), n) for value in (temperature, top_k, top_p))
    return sample(logits, keys, **dict(zip(("temperature", "top_k", "top_p"), rows, strict=True)))


DIGITS = pytest.mark.parametrize("bits", [1, 2, 4])  # on a CPU, a GPU and a TPU


@DIGITS
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
        (0, 1e-45, 1),  # in arithmetic without subnormal numbers it is 0
        (3, 0.7, 2),  # after top-3 the probabilities are .588 .235 .176
    ],
)
def test_truncation_by_hand(top_k, top_p, kept, bits):
    out = truncate(LOGITS[None], jnp.array([top_k]), jnp.array([top_p]), bits)
    np.testing.assert_array_equal(out[0], [*LOGITS[:kept], *[-np.inf] * (5 - kept)])


def test_ties_with_the_last_kept_token_are_kept():
    out = truncate(jnp.array([[1.0, 0.0, 0.0, -1.0]]), jnp.array([2]), jnp.array([1.0]))
    assert np.isfinite(out[0]).tolist() == [True, True, True, False]


def test_top_k_compares_logits_before_the_temperature():
    """Of each pair the second is larger, but numbers above 2 are twice as far apart: divided by 0.9, half of them are equal."""
    below = np.float32(1.9) + np.arange(64, dtype=np.float32) * np.float32(2**-23)
    pairs = jnp.stack([below, np.nextafter(below, np.float32(2))], axis=1)
    tokens, logprobs = draw(pairs, temperature=0.9, top_k=1)
    assert tokens.tolist() == [1] * 64 and not logprobs.any()


@DIGITS
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), top_k=st.integers(0, 40), top_p=st.floats(0.01, 1.0))
def test_truncation_agrees_with_a_sort(bits, seed, top_k, top_p):
    logits = np.random.default_rng(seed).normal(size=(1, 30)).astype(np.float32) * 3
    out = truncate(jnp.array(logits), jnp.array([top_k]), jnp.array([top_p], jnp.float32), bits)
    order = np.argsort(-logits[0], kind="stable")[: top_k or 30]
    mass = np.exp(logits[0, order] - logits[0].max())
    before = np.cumsum(mass / mass.sum()) - mass / mass.sum()
    wanted = set(order[before < top_p - 1e-5])
    kept = set(np.flatnonzero(np.isfinite(out[0])).tolist())
    near = set(order[np.abs(before - top_p) < 2e-5].tolist()) if top_p < 1 else set(order.tolist())
    assert wanted <= kept <= wanted | near


@pytest.mark.slow
def test_frequencies_in_a_vocabulary_of_several_blocks():
    """300 tokens, the last block not full: chi-square of 40,000 draws with 299 degrees of freedom (mean 299, sd 24.5)."""
    logits, n = rng.host(0, "test").normal(size=300).astype(np.float32), 40_000
    token, logprob = draw(jnp.tile(logits, (n, 1)))
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(np.exp(logprob), p[token], rtol=1e-4)
    counts = np.bincount(token, minlength=300)
    assert len(counts) == 300 and ((counts - n * p) ** 2 / (n * p)).sum() < 299 + 4 * 24.5


def test_greedy_takes_the_first_of_equal_peaks_not_the_heaviest_block():
    """Block 0 has more probability than block 2, which holds the peak twice. A greedy choice has log-probability 0."""
    logits = jnp.zeros((1, 300)).at[:, 128:].set(-5.0).at[:, jnp.array([270, 290])].set(1.0)
    assert [a.tolist() for a in draw(logits, temperature=0.0)] == [[270], [0.0]]


def test_frequencies_follow_temperature_and_truncation_of_each_row():
    """Temperature 1 samples: it is not decoded greedily."""
    n, weights = 20_000, [PROBABILITIES, PROBABILITIES**2, PROBABILITIES**0.5, PROBABILITIES * [1, 1, 0, 0, 0]]
    temperature, top_k = (jnp.repeat(jnp.array(a), n) for a in ([1.0, 0.5, 2.0, 1.0], [0, 0, 0, 2]))
    tokens, logprobs = draw(jnp.tile(LOGITS, (4 * n, 1)), temperature, top_k)
    for p, token, logprob in zip(weights, tokens.reshape(4, n), logprobs.reshape(4, n), strict=True):
        p = p / p.sum()
        np.testing.assert_allclose(np.bincount(token, minlength=5) / n, p, atol=4 * np.sqrt(0.25 / n))
        np.testing.assert_allclose(logprob, np.log(p[token]), rtol=1e-5)


def test_no_sort_of_the_vocabulary():
    text = jax.jit(lambda logits: draw(logits, top_k=5, top_p=0.9)).lower(jnp.zeros((2, 1000))).as_text()
    assert "while" in text and "stablehlo.sort" not in text and "chlo.top_k" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "absent", [[range(256, 999)], [range(130, 300)], [range(3, 5), range(120, 260), range(299, 300)]]
)
def test_absent_ids_are_never_sampled_wherever_they_are(absent):
    """The most likely ids are absent; the others are sampled as often as they would be without them."""
    rows, vocabulary = 4000, 300
    known = np.array([not any(id in ids for ids in absent) for id in range(vocabulary)])
    logits = jnp.where(known, jnp.sin(jnp.arange(vocabulary) * 1.0), 5.0)
    fixed = dict(top_k=jnp.zeros(rows, jnp.int32), top_p=jnp.ones(rows), absent=tuple(absent))
    keys, all_rows = jax.random.split(jax.random.key(0), rows), jnp.broadcast_to(logits, (rows, vocabulary))
    tokens, logprobs = sample(all_rows, keys, temperature=jnp.ones(rows), **fixed)
    expected = np.asarray(jax.nn.softmax(jnp.where(known, logits, -jnp.inf)))
    frequency = np.bincount(tokens, minlength=vocabulary) / rows
    assert not frequency[~known].any() and np.abs(frequency - expected).max() < 5 * np.sqrt(expected.max() / rows)
    np.testing.assert_allclose(logprobs, jax.nn.log_softmax(logits)[tokens], atol=1e-5)
    greedy, _ = sample(all_rows, keys, temperature=jnp.zeros(rows), **fixed)
    assert set(np.asarray(greedy).tolist()) == {int(expected.argmax())}


def test_a_row_is_sampled_alike_beside_rows_that_are_truncated():
    """The padding counts in the normaliser of a row that is not truncated, whatever the others ask for."""
    logits = jnp.tile(jnp.array([0.0, 1.0, 2.0, 3.0]), (2, 1))
    keys = jax.random.split(jax.random.key(0), 2)
    alone, beside = (
        sample(logits, keys, temperature=jnp.ones(2), top_k=jnp.array([0, k]), top_p=jnp.ones(2), absent=(range(3, 4),))
        for k in (0, 2)
    )
    assert alone[0][0] == beside[0][0] and alone[1][0] == beside[1][0]
