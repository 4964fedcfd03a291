"""From a benchmark's answers to its metrics."""

import numpy as np
from jaxtyping import Float

from amrsd_jax.evaluate.answers import Answer
from amrsd_jax.evaluate.statistics import bootstrap, ks, majority, pass_at_k, wilson
from amrsd_jax.tasks.mathematics import number


def measure(answers: list[Answer], family: str, generator: np.random.Generator) -> dict[str, float]:
    """Metrics of answers in the order of `answers.ask`: k samples of each of n questions, and one greedy answer.

    Args:
      family: of the task, see `ballot`.
      generator: of the bootstrap.

    Returns:
      sampled: avg@k, the share of right samples; pass_at_<K> for K = 2, 4, ..., k, where pass@1 is `sampled`; maj_at_<k>;
      score_<name>: means of the verdicts' further scores, 0 where one leaves a score out; greedy: share of right greedy
      answers. Each with a 95 % interval `_low`, `_high` over questions: Wilson's where each question's value is 0 or 1,
      which also says something where all are the same, else the bootstrap's.
      length: mean tokens of a sample; truncated, format, timeouts: shares of samples; n; samples: k.
    """
    sampled = [answer for answer in answers if answer.mode == "sampled"]
    greedy = np.array([answer.verdict.correct for answer in answers if answer.mode == "greedy"], float)
    n = len(greedy)
    k = len(sampled) // n
    values = per_question(sampled, k, family) | {"greedy": greedy}
    intervals = bootstrap(np.stack(list(values.values())), generator)
    metrics = {}
    for (name, of_questions), interval in zip(values.items(), intervals, strict=True):
        low, high = wilson(int(of_questions.sum()), n) if np.isin(of_questions, (0, 1)).all() else interval
        metrics |= {name: float(of_questions.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    shares = {
        "length": [answer.tokens for answer in sampled],
        "truncated": [answer.finish_reason == "length" for answer in sampled],
        "format": [answer.verdict.format_ok for answer in sampled],
        "timeouts": ["timed out" in answer.verdict.message for answer in sampled],
    }
    return metrics | {name: float(np.mean(of)) for name, of in shares.items()} | {"n": n, "samples": k}


def per_question(sampled: list[Answer], k: int, family: str) -> dict[str, Float[np.ndarray, " Q"]]:
    """What each question's k samples come to, by the names of `measure`."""
    verdicts = [answer.verdict for answer in sampled]
    correct = np.array([verdict.correct for verdict in verdicts]).reshape(-1, k)
    found = {"sampled": correct.mean(axis=1)}
    if k > 1:
        right = correct.sum(axis=1)
        found |= {f"pass_at_{several}": pass_at_k(right, k, several) for several in ks(k)[1:]}
        ballots = [ballot(verdict.parsed, family) for verdict in verdicts]
        votes = (ballots[start : start + k] for start in range(0, len(ballots), k))
        found[f"maj_at_{k}"] = np.array([majority(*pair) for pair in zip(votes, correct.tolist(), strict=True)])
    for name in sorted({name for verdict in verdicts for name in verdict.scores}):
        scores = [verdict.scores.get(name, 0.0) for verdict in verdicts]
        found[f"score_{name}"] = np.array(scores).reshape(-1, k).mean(axis=1)
    return found


def ballot(parsed: str | None, family: str) -> str | None:
    """What two answers that vote alike have in common: in mathematics a number's value, otherwise the text without spaces.

    The gold answer has no say in it, so right answers are not counted together more readily than wrong ones.
    """
    if parsed is None:
        return None
    value = number(parsed) if family == "mathematics" else None
    return "".join(parsed.split()) if value is None else str(value)
