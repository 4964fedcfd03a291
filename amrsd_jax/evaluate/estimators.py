"""Estimates a benchmark's metrics: pass@k, maj@k, and intervals over questions; and intervals over runs.

Every metric is a mean over questions of one value per question, so that all metrics share the resamples of questions.
Letters: Q questions, k samples of each, M metrics.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

RESAMPLES = 2000  # of the bootstrap, our choice
CONFIDENCE = 0.9500042097  # of Wilson's interval; its normal quantile is z = 1.96


def pass_at_k(correct: Integer[np.ndarray, " Q"], n: int, k: int) -> Float[np.ndarray, " Q"]:
    """Returns the probability that k of n samples, drawn without replacement, include a right one: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), Eq. 1, in integers up to the last division.

    Args:
      correct: number of right samples c of each question.
      n, k: samples per question, and samples drawn.
    """
    ways = math.comb(n, k)
    by_count = np.array([(ways - math.comb(n - c, k)) / ways for c in range(n + 1)])
    return by_count[correct]


def ks(n: int) -> list[int]:
    """Returns the values of k for which pass@k is reported with n samples: 1, 2, 4, ... and n."""
    return sorted({n, *(2**i for i in range(n.bit_length()))})


def majority(ballots: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Returns the expected score of the majority answer among a question's samples.

    A sample without a readable answer (None) does not vote; without any vote the score is 0. Ties are broken at random, so
    the score is the mean over the tied answers. Equal answers may have different verdicts, where some samples miss the
    requested form; they count with the mean of their verdicts.
    """
    votes = Counter(ballot for ballot in ballots if ballot is not None)
    most = max(votes.values(), default=0)
    winners = [ballot for ballot, count in votes.items() if count == most]
    # The winners have equally many votes, so the mean over their samples is the mean over the winners.
    scores = [right for ballot, right in zip(ballots, correct, strict=True) if ballot in winners]
    return sum(scores) / len(scores) if scores else 0.0


def bootstrap(
    values: Float[np.ndarray, "M Q"], generator: np.random.Generator, resamples: int = RESAMPLES
) -> Float[np.ndarray, "M 2"]:
    """Returns the 95 % percentile interval of each metric's mean, resampling questions with replacement (Efron 1979).

    All metrics share the resamples. `scipy.stats.bootstrap` computes the same interval, but draws other random numbers than
    those of the results on record, and an array of [resamples, Q] indices per metric.
    """
    questions = values.shape[1]
    counts = generator.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
    return np.quantile(counts @ values.T / questions, [0.025, 0.975], axis=0).T


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean and its interval by Student's t, 95 % by default; the ends are infinite if there is one value.

    It is for few runs, of which the bootstrap's interval is too narrow.
    """
    from scipy import stats  # takes a second to import

    mean = float(np.mean(values))
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.inf
    return mean, mean - float(half), mean + float(half)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a share (Wilson 1927); (0, 1) without any trial."""
    from scipy.stats import binomtest  # takes a second to import

    if n == 0:
        return 0.0, 1.0
    low, high = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)
