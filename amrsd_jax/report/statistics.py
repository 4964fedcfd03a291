"""What the logged rollouts say in numbers: where the teacher's gap lies, and where the signal went.

A gap is d = l_T - l_S in nats: how much likelier the teacher, who has read the reflection, finds the token.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from amrsd_jax.report.rollouts import CORRECT
from amrsd_jax.report.svg import Series

GAP_COLUMNS = ["reward", "gap", "first_error_start", "first_error_end"]
LEDGER_COLUMNS = ["reward", "advantage", "finish_reason", "reflection_kind", "reflection_status", "gap"]
TRUNCATED = ("length", "truncated")  # finish reasons of a response that ran into its token limit

TOKENS_MOST = 2_000_000  # more tokens than this are thinned to evenly spaced rows: memory, not precision

NAMES = {False: "failed", True: "correct"}
COLOURS = {False: "blame", True: "credit"}


@dataclasses.dataclass(frozen=True)
class Gaps:
    """Every token that has a gap, flat; K tokens of N rows.

    Attributes:
      value: float[K], nats.
      row: int[K], which row the token belongs to.
      position: float[K] in (0, 1), place in the response.
      correct: bool[K], whether its row was correct.
      place: int[K], 0 before, 1 inside, 2 after the first wrong step; -1 where none is known.
    """

    value: np.ndarray
    row: np.ndarray
    position: np.ndarray
    correct: np.ndarray
    place: np.ndarray


def gaps(tables: Sequence[pa.Table], most: int = TOKENS_MOST) -> Gaps:
    """The tokens of `tables` (columns GAP_COLUMNS) that a teacher has scored, about `most` at most."""
    parts: dict[str, list[np.ndarray]] = {field.name: [] for field in dataclasses.fields(Gaps)}
    rows = 0
    for table in tables:
        # A column without any gap may be of type null, others are lists of either float.
        lists = table["gap"].cast(pa.list_(pa.float64())).combine_chunks()
        tokens = len(lists.flatten()) * len(tables)
        taken = np.arange(0, len(lists), max(1, math.ceil(tokens / most)))
        lists, table = lists.take(taken), table.take(taken)
        lengths = np.array(lists.value_lengths().fill_null(0))
        start, end, reward = (
            np.repeat(table[name].to_numpy(), lengths) for name in ("first_error_start", "first_error_end", "reward")
        )
        index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = np.where(start < 0, -1, (index >= start).astype(int) + (index >= end))
        value = lists.flatten().to_numpy(zero_copy_only=False)
        kept = np.isfinite(value)
        for name, column in {
            "value": value,
            "row": rows + np.repeat(np.arange(len(lengths)), lengths),
            "position": (index + 0.5) / np.repeat(lengths, lengths),
            "correct": reward >= CORRECT,
            "place": place,
        }.items():
            parts[name].append(column[kept])
        rows += len(lengths)
    return Gaps(**{name: np.concatenate(columns or [np.zeros(0)]) for name, columns in parts.items()})


def histogram(gaps: Gaps, bins: int = 40) -> list[Series]:
    """Share of tokens by gap, one outline for correct rows and one for failed, over the middle 99.8 %."""
    low, high = np.quantile(gaps.value, [0.001, 0.999])
    edges = np.linspace(low, high, bins + 1) if high > low else low + np.array([-0.5, 0, 0.5])
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    found = []
    for correct in (False, True):
        values = gaps.value[gaps.correct == correct]
        if len(values):
            shares = (np.histogram(values, edges)[0] / len(values)).tolist()
            found.append(Series(NAMES[correct], centres, shares, colour=COLOURS[correct], mark="steps"))
    return found


def by_position(gaps: Gaps) -> list[Series]:
    """Mean gap along the response for correct and failed rows; x is the share of the response passed."""
    lengths = np.unique(gaps.row, return_counts=True)[1]
    bins = int(np.clip(np.median(lengths), 4, 20))  # a typical row has a token in every bin
    bucket = np.minimum((gaps.position * bins).astype(int), bins - 1)
    centres = ((np.arange(bins) + 0.5) / bins).tolist()
    return [
        Series(NAMES[correct], centres, *_mean_over_rows(gaps, bucket, bins, of), colour=COLOURS[correct])
        for correct in (False, True)
        if (of := gaps.correct == correct).any()
    ]


def around_first_error(gaps: Gaps) -> list[Series]:
    """Mean gap before (x = 0), inside (1) and after (2) the first wrong step, of the rows that know it."""
    of = (gaps.place >= 0) & ~gaps.correct.astype(bool)
    if not of.any():
        return []
    means = _mean_over_rows(gaps, gaps.place.astype(int), 3, of)
    return [Series("failed", [0, 1, 2], *means, colour="blame", mark="circle")]


def _mean_over_rows(gaps: Gaps, bucket: np.ndarray, buckets: int, of: np.ndarray) -> tuple[list, list, list]:
    """Mean over rows of each row's mean gap in a bucket, and 1.96 standard errors either side; None if empty.

    Tokens of a row are not independent, so that the row is the unit and not the token.
    """
    rows, row = np.unique(gaps.row[of], return_inverse=True)
    key, size = row * buckets + bucket[of], len(rows) * buckets
    counts = np.bincount(key, minlength=size).reshape(-1, buckets)
    sums = np.bincount(key, gaps.value[of], minlength=size).reshape(-1, buckets)
    mean, low, high = [], [], []
    for count, total in zip(counts.T, sums.T, strict=True):
        values = total[count > 0] / count[count > 0]
        middle = values.mean() if len(values) else None
        error = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
        mean.append(middle)
        low.append(None if error is None else middle - error)
        high.append(None if error is None else middle + error)
    return mean, low, high


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the ledger: how many of the logged rows took this way."""

    label: str
    group: str  # "token", "sequence" or "none": the level at which such a row teaches
    rows: int
    correct: int
    truncated: int


def ledger(tables: Sequence[pa.Table]) -> list[Entry]:
    """Sorts every row of `tables` (columns LEDGER_COLUMNS) into one entry; the entries add up to all rows."""
    rows, correct, truncated = Counter(), Counter(), Counter()
    for table in tables:
        scored = table["gap"].is_valid().to_pylist()
        for row, has_gap in zip(table.drop_columns("gap").to_pylist(), scored, strict=True):
            way = _way(row, has_gap)
            rows[way] += 1
            correct[way] += row["reward"] >= CORRECT
            truncated[way] += row["finish_reason"] in TRUNCATED
    order = ("token", "sequence", "none")
    ways = sorted(rows, key=lambda way: (order.index(way[0]), -rows[way]))
    return [Entry(way[1], way[0], rows[way], correct[way], truncated[way]) for way in ways]


def _way(row: dict, scored: bool) -> tuple[str, str]:
    status = row["reflection_status"]
    if status == "ok":
        return "token", f"usable {row['reflection_kind'] or 'reflection'}"
    if status not in ("", "not_needed", None):
        return "sequence", f"fallback: {status.replace('_', ' ')}"
    if scored:
        return "token", "teacher without a reflection"
    if row["advantage"] == 0:
        return "none", "advantage 0: equal rewards in the group"
    return "sequence", "no reflection needed"
