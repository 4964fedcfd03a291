"""Rank statistics: by hand, against slow definitions, and what must hold of any values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.compare.statistics import (
    auroc,
    cosines,
    mean_and_error,
    overlaps,
    precision_at_1,
    rank_correlations,
    ranks,
    sign_agreements,
    top_share,
)

few = st.integers(-3, 3).map(float)  # so that ties are common


def test_ranks_by_hand():
    np.testing.assert_array_equal(ranks(np.array([10.0, 30, 20, 20, -5])), [2, 5, 3.5, 3.5, 1])


def test_rank_correlation_by_hand():
    values = np.array([[1.0, 2, 3], [10, 20, 15], [3, 2, 1], [7, 7, 7]])
    table = rank_correlations(values)
    assert table[0] == [1.0, pytest.approx(0.5), pytest.approx(-1), None]
    assert table[3] == [None] * 4


def test_cosine_by_hand():
    assert cosines(np.array([[3.0, 4], [4, 3], [0, 0]]))[0] == [1.0, pytest.approx(0.96), None]


def test_signs_and_overlaps_by_hand():
    values = np.array([[1.0, -1, 0, 0], [2, 3, 0, -1], [0, 0, 0, 0]])
    assert sign_agreements(values) == [[1.0, 0.5, None], [0.5, 1.0, None], [None, None, None]]
    assert overlaps(values) == [[1.0, pytest.approx(2 / 3), 0.0], [pytest.approx(2 / 3), 1.0, 0.0], [0.0, 0.0, None]]


def test_auroc_and_precision_by_hand():
    score, wrong = np.array([0.1, 0.9, 0.9, 0.3]), np.array([False, True, False, False])
    assert auroc(score, wrong) == pytest.approx(2.5 / 3) and precision_at_1(score, wrong) == 0.5
    assert auroc(score, np.zeros(4, bool)) is None and auroc(score, np.ones(4, bool)) is None


def test_top_share_by_hand():
    values = np.array([-5.0, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    assert top_share(values, 0.1) == 0.5 and top_share(values, 0.01) == 0.5 and top_share(values, 1.0) == 1
    assert top_share(np.zeros(3), 0.1) is None


def test_mean_and_error_of_few():
    assert mean_and_error(np.array([])) == (None, None) and mean_and_error(np.array([2.0])) == (2.0, None)
    assert mean_and_error(np.array([1.0, 3.0])) == (2.0, pytest.approx(1.96))


@given(st.lists(st.tuples(few, st.booleans()), min_size=2, max_size=30))
def test_auroc_is_the_chance_that_a_positive_wins(rows):
    score, positive = np.array([s for s, _ in rows]), np.array([p for _, p in rows])
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(score[positive], score[~positive])]
    assert auroc(score, positive) == (pytest.approx(np.mean(wins)) if wins else None)


@given(st.lists(few, min_size=2, max_size=30))
def test_ranks_do_not_change_under_what_keeps_the_order(values):
    values = np.array(values)
    np.testing.assert_array_equal(ranks(values), ranks(values**3 + 2))
    assert ranks(values).sum() == len(values) * (len(values) + 1) / 2


@given(st.lists(st.tuples(few, few), min_size=2, max_size=30))
def test_matrices_are_symmetric_and_bounded(rows):
    values = np.array(rows).T
    for measure, low in ((rank_correlations, -1), (cosines, -1), (sign_agreements, 0), (overlaps, 0)):
        table = measure(values)
        assert table[0][1] == table[1][0]
        assert all(v is None or low - 1e-9 <= v <= 1 + 1e-9 for row in table for v in row)
