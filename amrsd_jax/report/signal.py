"""Measures where the teacher's gap lies in the logged rollouts, and counts the rollouts by the kind of credit they received.

The gap of a token is log p(teacher) - log p(student) in nats. Letters: N scored rollouts, B buckets.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from scipy import stats

from amrsd_jax.report.charts import BLAME, CREDIT, Series

COLUMNS = [
    "reward", "gap", "first_error_start", "first_error_end", "advantage", "finish_reason", "reflection_kind", "reflection_status",
    "token_advantage",
]  # fmt: skip
NULL = "null_gap"  # the column of the null control, in files of steps that have it
CORRECT = 1.0  # least reward of a correct rollout, as in `Verdict.correct`
_ROUNDING = 1e-5  # relative: smaller differences of a row's credit are rounding errors
TOKENS_MOST = 2_000_000  # with more tokens than this, only every k-th rollout is measured
CONTROL = "null control"  # the gaps of the teacher's prompt without a reflection
GROUPS = {"failed": BLAME, "correct": CREDIT, CONTROL: "grey"}


@dataclasses.dataclass(frozen=True)
class ScoredRollout:
    """A rollout that a teacher scored: its gaps, "correct", "failed" or CONTROL, and the token span of its first wrong step.

    The span is (-1, -1) where there is none or the task does not know it.
    """

    gap: np.ndarray
    outcome: str
    first_error: tuple[int, int]


def scored_rollouts(tables: Sequence[pa.Table], most: int = TOKENS_MOST) -> list[ScoredRollout]:
    """Returns the rollouts of `tables` with finite gaps, and those of the null control, evenly thinned to about `most` tokens."""
    scored = []
    for table in tables:
        columns = [table[name].to_numpy() for name in ("reward", "first_error_start", "first_error_end")]
        for column in ("gap", NULL) if NULL in table.column_names else ("gap",):
            for gap, reward, start, end in zip(table[column].combine_chunks(), *columns, strict=True):
                values = gap.values.to_numpy(zero_copy_only=False) if gap.is_valid else np.zeros(0)
                if len(values) and np.isfinite(values).all():
                    outcome = CONTROL if column == NULL else "correct" if reward >= CORRECT else "failed"
                    scored.append(ScoredRollout(values.astype(np.float64), outcome, (int(start), int(end))))
    return scored[:: max(1, math.ceil(sum(len(r.gap) for r in scored) / most))]


def histogram(rollouts: Sequence[ScoredRollout], bins: int = 40) -> list[Series]:
    """Returns the share of tokens by gap, for correct and failed rollouts and the control, over the middle 99.8 % of tokens."""
    low, high = np.quantile(np.concatenate([r.gap for r in rollouts]), [0.001, 0.999])
    edges = np.linspace(low, high, bins + 1) if high > low else low + np.array([-0.5, 0, 0.5])
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for outcome, colour in GROUPS.items():
        if gaps := [r.gap for r in rollouts if r.outcome == outcome]:
            values = np.concatenate(gaps)
            shares = np.histogram(values, edges)[0] / len(values)
            series.append(Series(outcome, centres, shares.tolist(), colour=colour, mark="steps"))
    return series


def by_position(rollouts: Sequence[ScoredRollout]) -> list[Series]:
    """Returns the mean gap along the response, for each of GROUPS; x is the share of the response passed."""
    typical = np.median([len(r.gap) for r in rollouts])
    buckets = int(np.clip(typical, 4, 20))  # a typical rollout has a token in each
    centres = ((np.arange(buckets) + 0.5) / buckets).tolist()

    def means(rollout: ScoredRollout) -> np.ndarray:
        position = (np.arange(len(rollout.gap)) + 0.5) / len(rollout.gap)
        return stats.binned_statistic(position, rollout.gap, bins=buckets, range=(0, 1)).statistic

    return [
        Series(outcome, centres, *_mean_over_rollouts(of, means), colour=colour)
        for outcome, colour in GROUPS.items()
        if (of := [r for r in rollouts if r.outcome == outcome])
    ]


def beyond(rollouts: Sequence[ScoredRollout], tau: float) -> dict[str, float]:
    """Returns the share of tokens whose gap is beyond tau on either side, for each of GROUPS that has rollouts."""
    shares = {}
    for outcome in GROUPS:
        if gaps := [r.gap for r in rollouts if r.outcome == outcome]:
            shares[outcome] = float((np.abs(np.concatenate(gaps)) > tau).mean())
    return shares


def around_first_error(rollouts: Sequence[ScoredRollout]) -> list[Series]:
    """Returns the mean gap before (x = 0), inside (1) and after (2) the first wrong step of failed rollouts."""
    of = [r for r in rollouts if r.outcome == "failed" and r.first_error[0] >= 0]

    def means(rollout: ScoredRollout) -> np.ndarray:
        start, end = rollout.first_error
        parts = rollout.gap[:start], rollout.gap[start:end], rollout.gap[end:]
        return np.array([part.mean() if len(part) else np.nan for part in parts])

    return [Series("failed", [0, 1, 2], *_mean_over_rollouts(of, means), colour=BLAME, mark="circle")] if of else []


def _mean_over_rollouts(rollouts: Sequence[ScoredRollout], measure: Callable) -> tuple[list, list, list]:
    """Returns the mean over rollouts of their B measured means, and 1.96 standard errors either side; None where unknown.

    The unit is the rollout, because its tokens are not independent.
    """
    means: Float[np.ndarray, "N B"] = np.stack([measure(r) for r in rollouts])
    columns = [column[np.isfinite(column)] for column in means.T]
    mean = [float(column.mean()) if len(column) else None for column in columns]
    error = [1.96 * float(stats.sem(column)) if len(column) > 1 else None for column in columns]
    low, high = ([None if e is None else m + sign * e for m, e in zip(mean, error, strict=True)] for sign in (-1, 1))
    return mean, low, high


@dataclasses.dataclass(frozen=True)
class Use:
    """The number of logged rollouts with one level of credit ("each token", "whole rollout" or "nothing") for one reason."""

    level: str
    reason: str
    rollouts: int
    correct: int
    truncated: int


def uses(tables: Sequence[pa.Table]) -> list[Use]:
    """Returns the uses of all rollouts of `tables` (with COLUMNS); each rollout counts in one."""
    rollouts, correct, truncated = Counter(), Counter(), Counter()
    for table in tables:
        scored, credits = table["gap"].is_valid().to_pylist(), table["token_advantage"].combine_chunks()
        dropped = [name for name in ("gap", NULL, "token_advantage") if name in table.column_names]
        for row, has_gap, credit in zip(table.drop_columns(dropped).to_pylist(), scored, credits, strict=True):
            use = _use(row, has_gap, credit.values.to_numpy(zero_copy_only=False))
            rollouts[use] += 1
            correct[use] += row["reward"] >= CORRECT
            truncated[use] += row["finish_reason"] == "length"
    levels = ("each token", "whole rollout", "nothing")
    ordered = sorted(rollouts, key=lambda use: (levels.index(use[0]), -rollouts[use]))
    return [Use(*use, rollouts[use], correct[use], truncated[use]) for use in ordered]


def _use(row: dict, scored: bool, credit: np.ndarray) -> tuple[str, str]:
    status = row["reflection_status"]
    if not credit.any():
        # Rules that distil give no credit where there is a context.
        level = "each token" if status == "ok" else "nothing"
    else:
        level = "each token" if np.ptp(credit) > _ROUNDING * np.abs(credit).max() else "whole rollout"
    if status == "ok":
        return level, f"usable {row['reflection_kind'] or 'reflection'}"
    if status not in ("", "not_needed", None):
        return level, f"unusable reflection: {status.replace('_', ' ')}"
    if scored:
        return level, "teacher without a reflection"
    if level == "nothing":
        left_out = row["advantage"] and row["finish_reason"] == "length"
        return level, "truncated" if left_out else "no advantage" if not row["advantage"] else "no credit by the rule"
    return level, "no reflection needed"
