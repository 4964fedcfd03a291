"""Rank statistics with ties averaged, in NumPy. None stands for what is not defined."""

import numpy as np
from jaxtyping import Bool, Float, Num

Matrix = list[list[float | None]]


def ranks(values: Num[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1 to n; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]


def rank_correlations(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Spearman's rank correlation of every pair of rows; None for a row that is constant."""
    ranked = np.stack([ranks(row) for row in values])
    return cosines(ranked - ranked.mean(axis=1, keepdims=True))


def cosines(vectors: Num[np.ndarray, "K n"]) -> Matrix:
    """Cosine of the angle between every pair of rows; None for a row of zeros."""
    vectors = np.asarray(vectors, np.float64)
    gram = vectors @ vectors.T
    length = np.sqrt(np.diag(gram))
    return [
        [
            None if not length[i] or not length[j] else 1.0 if i == j else float(gram[i, j] / (length[i] * length[j]))
            for j in range(len(gram))
        ]
        for i in range(len(gram))
    ]


def sign_agreements(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Of the places where neither of two rows is 0, the share at which their signs are the same; None if there is none."""
    signs = np.sign(values)
    return [[_share((a == b)[(a != 0) & (b != 0)]) for b in signs] for a in signs]


def overlaps(values: Num[np.ndarray, "K n"]) -> Matrix:
    """Of the places where one of two rows is not 0, the share at which neither is; None if there is none."""
    speaks = values != 0
    return [[_share((a & b)[a | b]) for b in speaks] for a in speaks]


def _share(of: Bool[np.ndarray, " n"]) -> float | None:
    return float(of.mean()) if len(of) else None


def auroc(score: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float | None:
    """Chance that a positive scores above a negative, ties half; None without one of either."""
    hits = int(positive.sum())
    misses = len(positive) - hits
    if not hits or not misses:
        return None
    return float((ranks(score)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def precision_at_1(score: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Chance that the highest score is a positive's, one of the tied ones being picked at random."""
    return float(positive[score == score.max()].mean())


def top_share(values: Num[np.ndarray, " n"], share: float) -> float | None:
    """Share of the sum of |values| that the largest `share` of them hold, at least one; None if all are 0."""
    sizes = np.sort(np.abs(np.asarray(values, np.float64)))[::-1]
    total = sizes.sum()
    return float(sizes[: max(1, round(share * len(sizes)))].sum() / total) if total else None


def mean_and_error(values: Num[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """Mean, and 1.96 standard errors of it; None of no values, or of one."""
    values = np.asarray(values, np.float64)
    error = float(1.96 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return (float(values.mean()) if len(values) else None), error
