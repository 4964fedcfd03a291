"""Computes a benchmark's metrics from its answers."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from amrsd_jax.evaluate.answers import Answer
from amrsd_jax.evaluate.estimators import bootstrap, ks, majority, pass_at_k, wilson
from amrsd_jax.problems import Problem
from amrsd_jax.tasks.mathematics import number


def measure(
    answers: list[Answer], family: Callable[[Problem], str], generator: np.random.Generator
) -> dict[str, float]:
    """Returns the metrics of k samples and one greedy answer for each of n questions.

    Args:
      answers: in the order of `answers.ask`.
      family: of a problem, see `ballot`.
      generator: random generator of the bootstrap.

    Returns:
      sampled: avg@k, the share of right samples; pass_at_<K> for K = 2, 4, ..., k, where pass@1 is `sampled`; maj_at_<k>;
      score_<name>: means of the verdicts' further scores, where a verdict without one counts 0; greedy: share of right
      greedy answers. Each of these has a 95 % interval `_low`, `_high` over questions: Wilson's where each question's value
      is 0 or 1, because its width is not 0 where all values are equal, else the bootstrap's.
      length: mean tokens per sample; truncated, format, timeouts: shares of samples; n: questions; samples: k.
    """
    sampled = [answer for answer in answers if answer.mode == "sampled"]
    greedy = np.array([answer.verdict.correct for answer in answers if answer.mode == "greedy"], float)
    n = len(greedy)
    k = len(sampled) // n
    values = by_question(sampled, k, family) | {"greedy": greedy}
    intervals = bootstrap(np.stack(list(values.values())), generator)
    metrics = {}
    for (name, per_question), interval in zip(values.items(), intervals, strict=True):
        low, high = wilson(int(per_question.sum()), n) if np.isin(per_question, (0, 1)).all() else interval
        metrics |= {name: float(per_question.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    shares = {
        "length": [answer.tokens for answer in sampled],
        "truncated": [answer.finish_reason == "length" for answer in sampled],
        "format": [answer.verdict.format_ok for answer in sampled],
        "timeouts": [answer.verdict.timed_out for answer in sampled],
    }
    return metrics | {name: float(np.mean(values)) for name, values in shares.items()} | {"n": n, "samples": k}


def by_set(benchmark: str, metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Returns the metrics of an evaluation by the benchmark's name; those of a set of a mixture by `benchmark/set`."""
    parts: dict[str, dict[str, float]] = {}
    for metric, value in metrics.items():
        *data_set, own = metric.split("/")
        parts.setdefault("/".join([benchmark, *data_set]), {})[own] = value
    return parts


def by_question(sampled: list[Answer], k: int, family: Callable[[Problem], str]) -> dict[str, Float[np.ndarray, " Q"]]:
    """Returns the metrics of `measure` for each question alone, from its k samples."""
    verdicts = [answer.verdict for answer in sampled]
    correct = np.array([verdict.correct for verdict in verdicts]).reshape(-1, k)
    values = {"sampled": correct.mean(axis=1)}
    if k > 1:
        right = correct.sum(axis=1)
        values |= {f"pass_at_{several}": pass_at_k(right, k, several) for several in ks(k)[1:]}
        ballots = [ballot(answer.verdict.parsed, family(answer.problem)) for answer in sampled]
        votes = (ballots[start : start + k] for start in range(0, len(ballots), k))
        values[f"maj_at_{k}"] = np.array([majority(*pair) for pair in zip(votes, correct.tolist(), strict=True)])
    for name in sorted({name for verdict in verdicts for name in verdict.scores}):
        scores = [verdict.scores.get(name, 0.0) for verdict in verdicts]
        values[f"score_{name}"] = np.array(scores).reshape(-1, k).mean(axis=1)
    return values


def ballot(parsed: str | None, family: str) -> str | None:
    """Returns the form of an answer by which votes are counted: the value of a number in mathematics, else text without spaces.

    The gold answer is not used, so that right answers are not grouped more readily than wrong ones.
    """
    if parsed is None:
        return None
    value = number(parsed) if family == "mathematics" else None
    return "".join(parsed.split()) if value is None else str(value)
