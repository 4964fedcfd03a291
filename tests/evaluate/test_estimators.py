"""pass@k, maj@k and intervals: by hand, against enumeration, and as properties."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from amrsd_jax.evaluate.estimators import bootstrap, ks, majority, pass_at_k, wilson

questions = st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n), min_size=1)))


def test_pass_at_k_by_hand():
    """4 samples: with 1 right one, 3 of the 6 pairs hold it; with 2, all but 1 pair do; three of them miss only none."""
    np.testing.assert_array_equal(pass_at_k(np.array([0, 1, 2, 4]), 4, 2), [0, 3 / 6, 5 / 6, 1])
    np.testing.assert_array_equal(pass_at_k(np.array([0, 1, 2, 4]), 4, 4), [0, 1, 1, 1])


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(case):
    n, c, k = case
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(np.mean([any(subset) for subset in subsets]), abs=1e-15)


@given(questions)
def test_pass_at_k_grows_with_k_from_the_mean_score(case):
    n, correct = case
    curve = np.stack([pass_at_k(np.array(correct), n, k) for k in range(1, n + 1)])
    np.testing.assert_array_equal(curve[0], np.array(correct) / n)
    np.testing.assert_array_equal(curve[-1], np.array(correct) > 0)
    assert (np.diff(curve, axis=0) >= 0).all() and (curve >= 0).all() and (curve <= 1).all()


def test_ks_are_powers_of_two_and_the_last():
    assert [ks(n) for n in (1, 2, 3, 16, 20)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 20]]


@pytest.mark.parametrize(
    "ballots, right, score",
    [
        (["7", "7", "8"], [1, 1, 0], 1.0),
        (["8", "7", "8", "7"], [0, 1, 0, 1], 0.5),  # a tie: one of the two by chance
        (["1", "2", "3"], [0, 0, 1], 1 / 3),
        ([None, None, None, "7"], [0, 0, 0, 1], 1.0),  # what could not be read does not vote
        ([None, None], [0, 0], 0.0),
        (["7", "7", "8"], [1, 0, 0], 0.5),  # one of the two voters broke the form
    ],
)
def test_majority_by_hand(ballots, right, score):
    assert majority(ballots, [bool(r) for r in right]) == pytest.approx(score)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.booleans()), min_size=1), st.randoms())
def test_majority_does_not_depend_on_the_order(votes, random):
    shuffled = random.sample(votes, len(votes))
    assert majority(*zip(*votes, strict=True)) == pytest.approx(majority(*zip(*shuffled, strict=True)))


def test_the_bootstrap_is_the_resampling_written_out():
    values = np.random.default_rng(0).random((3, 17))
    draws = np.random.default_rng(1).multinomial(17, np.full(17, 1 / 17), size=200)
    means = [[row[np.repeat(np.arange(17), times)].mean() for row in values] for times in draws]
    expected = np.quantile(means, [0.025, 0.975], axis=0).T
    np.testing.assert_allclose(bootstrap(values, np.random.default_rng(1), resamples=200), expected, atol=1e-12)


def test_the_bootstrap_approaches_all_resamples():
    """Three questions can be drawn in 27 ways; the quantiles fall inside steps of that distribution."""
    values = np.array([0.0, 0.3, 1.0])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    exact = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose(
        bootstrap(values[None], np.random.default_rng(0), resamples=20_000)[0], exact, atol=1e-12
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 9))
def test_the_bootstrap_is_seeded_and_stays_between_the_values(values, seed):
    a, b = (bootstrap(np.array([values]), np.random.default_rng(seed), resamples=50)[0] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert min(values) - 1e-12 <= a[0] <= a[1] <= max(values) + 1e-12


def test_wilson_by_hand():
    """8 of 10: centre (.8 + z² / 20) / (1 + z² / 10), half width z √(.016 + z² / 400) / (1 + z² / 10), z = 1.96."""
    centre, half, whole = 0.8 + 1.96**2 / 20, 1.96 * (0.016 + 1.96**2 / 400) ** 0.5, 1 + 1.96**2 / 10
    assert wilson(8, 10) == pytest.approx(((centre - half) / whole, (centre + half) / whole), abs=1e-9)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0 and wilson(0, 0) == (0.0, 1.0)
