"""Matrices over pairs of methods: by hand, and properties of any values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.compare.pairwise import cosines, inner_products, overlaps, rank_correlations, sign_agreements

few = st.integers(-3, 3).map(float)  # so that ties are common


def test_rank_correlation_by_hand():
    table = rank_correlations(np.array([[1.0, 2, 3], [10, 20, 15], [3, 2, 1], [7, 7, 7]]))
    assert table[0] == [1.0, pytest.approx(0.5), pytest.approx(-1), None]
    assert table[3] == [None] * 4


def test_ties_share_the_mean_of_their_ranks():
    """Ranks 1.5, 1.5, 3 and 1, 2, 3."""
    assert rank_correlations(np.array([[4.0, 4, 9], [0, 1, 2]]))[0][1] == pytest.approx(1.5 / (1.5 * 2) ** 0.5)


def test_cosine_by_hand():
    assert cosines(inner_products(np.array([[[3.0], [4], [0]], [[4], [3], [0]]])))[0] == [
        1.0,
        pytest.approx(0.96),
        None,
    ]


def test_signs_and_overlaps_by_hand():
    values = np.array([[1.0, -1, 0, 0], [2, 3, 0, -1], [0, 0, 0, 0]])
    assert sign_agreements(values) == [[1.0, 0.5, None], [0.5, 1.0, None], [None, None, None]]
    assert overlaps(values) == [[1.0, pytest.approx(2 / 3), 0.0], [pytest.approx(2 / 3), 1.0, 0.0], [0.0, 0.0, None]]


@given(st.lists(st.tuples(few, few), min_size=2, max_size=30))
def test_matrices_are_symmetric_and_bounded(rows):
    values = np.array(rows).T
    tables = (
        (cosines(inner_products([values])), -1),
        (rank_correlations(values), -1),
        (sign_agreements(values), 0),
        (overlaps(values), 0),
    )
    for table, low in tables:
        assert table[0][1] == table[1][0]
        assert all(v is None or low - 1e-9 <= v <= 1 + 1e-9 for row in table for v in row)
