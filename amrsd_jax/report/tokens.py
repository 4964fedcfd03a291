"""Makes the data of the token heat map: logged rollouts as JSON, with the numbers of each token packed into 16 bits."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amrsd_jax.report.signal import CORRECT
from amrsd_jax.runtime.rollouts import read_rollouts

ROW_COLUMNS = [
    "step", "row", "group", "problem_id", "question", "answer", "reward", "verdict", "finish_reason", "advantage",
    "reflection_kind", "reflection_status", "reflection", "first_error_start", "first_error_end",
]  # fmt: skip
TOKEN_COLUMNS = {  # name in the page's script: column
    "student": "student_logprobs", "teacher": "teacher_logprobs", "gap": "gap", "credit": "token_advantage",
    "entropy": "student_entropy",
}  # fmt: skip
STEPS_MOST, TOKENS_MOST = 8, 600_000  # on a page; a token takes about 20 bytes
MISSING = -(2**15)  # packed in place of a number that is not finite


def heat_map(files: Mapping[int, Path], tau: float) -> tuple[dict[str, Any], list[str]]:
    """Returns the heat map's data, and a sentence about each file that cannot be read.

    The steps are the first and the last, each with as many rollouts as half of the page holds, and between them those that fit
    whole; rollouts with a usable reflection come first.

    Args:
      files: rollout files by step.
      tau: the gap below which the credit rule ignores a token; the colours of gaps saturate no earlier.

    Returns:
      `steps` with their rollouts, and `reach`: for each colouring, the distance from its centre that has the full colour;
      and the sentences.
    """
    candidates = spread(list(files), STEPS_MOST)
    middle = sorted(candidates[1:-1], key=lambda step: abs(step - (candidates[0] + candidates[-1]) / 2))
    steps, notes, room, left_out = {}, [], TOKENS_MOST, 0
    for step in dict.fromkeys([*candidates[:1], *candidates[-1:], *middle]):
        try:
            table = read_rollouts(files[step])
        except ValueError as error:
            notes.append(f"Rollouts of step {step} were left out: {error}")
            continue
        table = table.take(pa.array(_order(table), pa.int64()))
        ends = np.cumsum(pc.fill_null(pc.list_value_length(table["token_text"]), 0).to_numpy())
        at_an_end = step in (candidates[0], candidates[-1])
        if not at_an_end and ends[-1] > room:
            left_out += 1
            continue
        room_here = TOKENS_MOST // 2 if at_an_end and len(candidates) > 1 else room
        fits = max(1, int(np.searchsorted(ends, room_here, side="right")))
        steps[step] = {"step": step, "of": len(ends), "rows": [_row(row) for row in table.slice(0, fits).to_pylist()]}
        room -= int(ends[fits - 1])
    rows = [row for step in steps.values() for row in step["rows"]]
    reach = {
        "gap": max(tau, _reach(row["gap"] for row in rows)) or 1.0,
        "weight": max(0.1, _reach(row["credit"] / row["advantage"] - 1 for row in rows if row["advantage"])),
        "credit": _reach(row["credit"] for row in rows) or 1.0,
    }
    for row in rows:
        row |= {name: _pack(row[name]) for name in TOKEN_COLUMNS}
    if left_out:
        notes.append(
            f"Token credit leaves out {left_out} of {len(candidates)} steps: a page holds {TOKENS_MOST:,} tokens."
        )
    return {"steps": [steps[step] for step in sorted(steps)], "reach": reach}, notes


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Returns at most `most` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(most - 1, 1))] for i in range(most)]


def _order(table: pa.Table) -> list[int]:
    """Returns row numbers: usable reflections first, then rollouts with an advantage, then the others, each in row order."""
    status, advantage = table["reflection_status"].to_pylist(), table["advantage"].to_pylist()
    return sorted(range(len(status)), key=lambda i: (status[i] != "ok", not advantage[i], i))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a rollout for the script, with the numbers of its tokens not packed yet; null columns give empty arrays."""
    entry = {name: row[name] for name in ROW_COLUMNS} | {
        "data_set": row.get("data_set"),
        "correct": row["reward"] >= CORRECT,
        "tokens": row["token_text"],
    }
    for name in ("reward", "advantage"):
        entry[name] = float(f"{row[name]:.6g}") if row[name] is not None and math.isfinite(row[name]) else None
    for name, column in TOKEN_COLUMNS.items():
        entry[name] = np.array(row[column] or [], np.float64)
        if len(entry[name]) not in (0, len(row["token_text"])):
            raise ValueError(f"row {row['row']} has {len(row['token_text'])} tokens but {len(entry[name])} of {column}")
    return entry


def _reach(distances: Iterable[np.ndarray]) -> float:
    """Returns the 0.98 quantile of the finite distances from the centre that are not 0; 0 if there are none."""
    sizes = np.abs(np.concatenate([np.zeros(0), *distances]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 1e-6)]
    return float(f"{np.quantile(sizes, 0.98):.4g}") if len(sizes) else 0.0


def _pack(values: np.ndarray) -> list | None:
    """Returns [scale, base64 of little-endian int16]: a value is its integer times the scale, MISSING if it is not finite."""
    if not len(values):
        return None
    finite = np.isfinite(values)
    scale = float(np.abs(values[finite]).max(initial=0.0)) / (2**15 - 1) or 1.0
    packed = np.where(finite, np.round(np.where(finite, values, 0) / scale), MISSING).astype("<i2")
    return [scale, base64.b64encode(packed.tobytes()).decode()]
