"""Read the logged rollouts: whole rows for the heat map, flat token columns for the statistics.

Row columns are listed once, in LIGHT and TOKENS; a file that lacks one or cannot be read is left out by name.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# One value a row.
LIGHT = ["step", "row", "group", "problem_id", "question", "answer", "reward", "verdict", "finish_reason"]
LIGHT += ["advantage", "reflection_kind", "reflection_status", "reflection"]
LIGHT += ["first_error_start", "first_error_end"]
# One value a token: the lists of a row are equally long, or null where the pass was not made.
TOKENS = ["token_text", "logp_student", "logp_teacher", "gap", "token_advantage", "entropy"]

CORRECT = 0.5  # a rollout with at least this reward counts as correct (the embedded verifiers give 0 or 1)
STEPS_SHOWN, ROWS_SHOWN, TOKENS_SHOWN = (
    3,
    12,
    800,
)  # keep the page under a few MB


def tables(files: Iterable[Path], columns: Sequence[str]) -> tuple[list[pa.Table], list[str]]:
    """Returns the `columns` of each readable file, and a sentence for each file that had to be left out."""
    found, notes = [], []
    for path in files:
        try:
            table = pq.read_table(path, columns=list(columns))
            if missing := set(columns) - set(table.column_names):
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
            found.append(table)
        except (pa.ArrowException, OSError, ValueError) as error:
            notes.append(f"rollouts/{path.name} was left out: {str(error).splitlines()[0]}")
    return found, notes


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]


def sample_rows(table: pa.Table, most: int = ROWS_SHOWN) -> list[dict[str, Any]]:
    """Rows of one step to look at: half failed and half correct if there are enough, in row order.

    Within either half rows with a usable reflection come first, then rows whose first wrong step is known, so
    that what a person sees is where the method acted. Nothing else about a row decides.
    """
    rows = table.select(LIGHT).to_pylist()

    def preference(index: int) -> tuple[bool, bool, int]:
        row = rows[index]
        return row["reflection_status"] != "ok", row["first_error_start"] < 0, index

    ranked = sorted(range(len(rows)), key=preference)
    failed = [i for i in ranked if rows[i]["reward"] < CORRECT]
    correct = [i for i in ranked if rows[i]["reward"] >= CORRECT]
    half = most // 2
    spare = failed[half:] + correct[half:]
    chosen = sorted((failed[:half] + correct[:half] + sorted(spare, key=preference))[:most])
    return table.take(pa.array(chosen, pa.int64())).to_pylist()


def for_heat_map(row: dict[str, Any]) -> dict[str, Any]:
    """One row as the page's script wants it: short keys for the token columns, finite numbers or null.

    A row longer than TOKENS_SHOWN tokens is cut there; `length` keeps its true number of tokens.
    """
    texts = row["token_text"]
    cut = {
        short: _rounded(row[name], len(texts))
        for short, name in (
            ("student", "logp_student"),
            ("teacher", "logp_teacher"),
            ("gap", "gap"),
            ("credit", "token_advantage"),
            ("entropy", "entropy"),
        )
    }
    light = {name: row[name] for name in LIGHT}
    for name in ("reward", "advantage"):
        light[name] = _finite(light[name])
    return light | cut | {"correct": is_correct(row), "tokens": texts[:TOKENS_SHOWN], "length": len(texts)}


def is_correct(row: dict[str, Any]) -> bool:
    return row["reward"] >= CORRECT


def _rounded(values: Sequence[float | None] | None, length: int) -> list[float | None] | None:
    if values is None:
        return None
    if len(values) != length:
        raise ValueError(f"a row has {length} tokens but {len(values)} values of a token column")
    return [_finite(value) for value in values[:TOKENS_SHOWN]]


def _finite(value: float | None) -> float | None:
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
