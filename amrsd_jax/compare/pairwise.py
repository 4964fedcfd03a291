"""Computes matrices that compare every pair of K methods. None stands for a value that is not defined."""

import numpy as np
from jaxtyping import Bool, Num
from scipy import stats

Matrix = list[list[float | None]]


def rank_correlations(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Returns Spearman's rank correlation of every pair of rows; None for a row that is constant."""
    ranks = stats.rankdata(values, axis=1)
    return cosines(ranks - ranks.mean(axis=1, keepdims=True))


def cosines(vectors: Num[np.ndarray, "K n"]) -> Matrix:
    """Returns the cosine of the angle between every pair of rows; None for a row of zeros."""
    vectors = np.asarray(vectors, np.float64)
    products = vectors @ vectors.T
    norms = np.sqrt(np.diag(products))

    def cosine(i: int, j: int) -> float | None:
        if not norms[i] or not norms[j]:
            return None
        return 1.0 if i == j else float(products[i, j] / (norms[i] * norms[j]))

    return [[cosine(i, j) for j in range(len(norms))] for i in range(len(norms))]


def sign_agreements(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Returns the share of equal signs among the places where both rows are non-zero; None if there are none."""
    signs = np.sign(values)
    return [[_share((a == b)[(a != 0) & (b != 0)]) for b in signs] for a in signs]


def overlaps(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Returns the Jaccard index of the non-zero places of every pair of rows; None if both rows are all zeros."""
    active = values != 0
    return [[_share((a & b)[a | b]) for b in active] for a in active]


def _share(places: Bool[np.ndarray, " n"]) -> float | None:
    return float(places.mean()) if len(places) else None
