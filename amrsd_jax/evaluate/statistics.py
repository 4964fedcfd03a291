"""What a benchmark's answers come to: pass@k, maj@k, shares, and how far questions by chance would move them.

Every metric is a mean over questions of one number a question has, so one resampling of questions serves all of them.
Letters: Q questions, k samples of each, M metrics.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

RESAMPLES = 2000  # of a bootstrap, our choice


def pass_at_k(correct: Integer[np.ndarray, " Q"], n: int, k: int) -> Float[np.ndarray, " Q"]:
    """Chance that k of a question's n samples, drawn without putting back, hold a right one: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), Eq. 1, in whole numbers up to the last division.

    Args:
      correct: right samples c of each question.
    """
    ways = math.comb(n, k)
    by_count = np.array([(ways - math.comb(n - c, k)) / ways for c in range(n + 1)])
    return by_count[correct]


def ks(n: int) -> list[int]:
    """The k of pass@k that n samples are asked for: 1, 2, 4, ... and n."""
    return sorted({n, *(2**i for i in range(n.bit_length()))})


def majority(ballots: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Score of the answer that most of a question's samples give.

    A sample without a readable answer (None) does not vote; without any vote the score is 0. Of answers with equally many
    votes one is taken by chance, so the score is their mean. Samples that vote alike and are judged differently, as a form
    that is only sometimes kept makes happen, count with their mean.
    """
    votes = Counter(ballot for ballot in ballots if ballot is not None)
    most = max(votes.values(), default=0)
    winners = [ballot for ballot, count in votes.items() if count == most]
    scores = [
        right for ballot, right in zip(ballots, correct, strict=True) if ballot in winners
    ]  # equally many of each
    return sum(scores) / len(scores) if scores else 0.0


def bootstrap(
    values: Float[np.ndarray, "M Q"], generator: np.random.Generator, resamples: int = RESAMPLES
) -> Float[np.ndarray, "M 2"]:
    """95 % percentile interval of each mean over questions, the questions drawn again with putting back (Efron 1979).

    Questions are drawn once for all metrics.
    """
    questions = values.shape[1]
    times = generator.multinomial(questions, np.full(questions, 1 / questions), size=resamples)  # each was drawn
    return np.quantile(times @ values.T / questions, [0.025, 0.975], axis=0).T


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); z = 1.96 for 95 %."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
