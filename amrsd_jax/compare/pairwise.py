"""Computes matrices that compare every pair of K methods. None stands for a value that is not defined."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import stats

Matrix = list[list[float | None]]


def rank_correlations(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Returns Spearman's rank correlation of every pair of rows; None for a row that is constant."""
    ranks = stats.rankdata(values, axis=1)
    return cosines(inner_products([ranks - ranks.mean(axis=1, keepdims=True)]))


def inner_products(blocks: Iterable[Num[np.ndarray, "K b"]]) -> Float[np.ndarray, "K K"]:
    """Returns the inner products of K vectors, summed in float64 over blocks of their entries."""
    return sum(block @ block.T for block in (np.asarray(block, np.float64) for block in blocks))


def cosines(products: Float[np.ndarray, "K K"]) -> Matrix:
    """Returns the cosine of the angle between every pair of vectors, from their inner products; None for a vector of zeros."""
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
