"""Writes the metrics of a run while it trains: JSON lines, and what the trackers show."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from amrsd_jax.files import atomic_write, whole_lines
from amrsd_jax.processes import broadcast, is_first, only_first
from amrsd_jax.runtime.console import note
from amrsd_jax.runtime.trackers import TensorBoard, Tracker


class Metrics:
    """Writes a workdir's `metrics.jsonl` and `timeline.jsonl`, one object per line, and passes metrics to the trackers.

    Lines after `step`, where the run resumes, and a half-written line are dropped first; the resumed run writes them again,
    with the same metrics. Lines that are damaged are dropped too, and the steps whose lines are missing are listed on stderr:
    curves and `results.json` lack them, but training does not depend on them. Only process 0 writes.
    """

    @only_first
    def __init__(self, workdir: Path, step: int, tracker: Tracker | None = None):
        self._file, rows = _reopen(workdir / "metrics.jsonl", step)
        self._timeline, _ = _reopen(workdir / "timeline.jsonl", step)
        self._evaluations = {row["step"]: row for row in rows if row.get("kind") == "eval"}
        for line in missing(rows, step):
            note(f"{workdir / 'metrics.jsonl'}: {line}")
        self._trackers = [TensorBoard(workdir, step), *([tracker] if tracker else [])]

    @only_first
    def write(self, kind: str, step: int, values: dict[str, float | None]) -> None:
        """Appends a row of metrics; `kind` is "train" or "eval". None, and what is not finite, becomes null; trackers lack it."""
        known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        self._file.write(json.dumps({"kind": kind, "step": step} | dict.fromkeys(values) | known) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(kind, step, known)

    @only_first
    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Passes the saved rollouts of a step to the trackers."""
        for tracker in self._trackers:
            tracker.rollouts(step, rows)

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """Returns, on all processes, the evaluation of `step` that metrics.jsonl had when it was opened; None if it had none."""
        return broadcast(self._evaluations.get(step) if is_first() else None)

    @only_first
    def write_timeline(self, step: int, timeline: dict) -> None:
        """Appends a step's timeline (see `Clock.timeline`), about 3 KB."""
        self._timeline.write(json.dumps({"step": step, **timeline}) + "\n")
        self._timeline.flush()

    @only_first
    def sync(self) -> None:
        """Flushes to disk; called before a checkpoint is saved, so that no checkpoint is ahead of its metrics."""
        for file in (self._file, self._timeline):
            os.fsync(file.fileno())

    @only_first
    def close(self, results: dict[str, Any] | None = None) -> None:
        """Closes all files and trackers; `results` is the content of `results.json`."""
        for file in (self._file, self._timeline):
            file.close()
        for tracker in self._trackers:
            tracker.close(results)


def _reopen(path: Path, step: int) -> tuple[TextIO, list[dict]]:
    """Drops the lines after a step, and damaged ones, from a file of JSON lines; returns it open for appending, and its rows."""
    rows, faults = whole_lines(path)
    for fault in faults:
        note(f"{fault}; the line is left out")
    kept = [row for row in rows if isinstance(row.get("step"), int) and row["step"] <= step]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept))
    return path.open("a"), kept


def missing(rows: Sequence[dict], step: int) -> list[str]:
    """Returns a sentence for each kind of row that should be among the metrics of a run after `step` steps, and is not."""
    lines = []
    trained = {row["step"] for row in rows if row.get("kind") == "train"}
    if lost := [number for number in range(1, step + 1) if number not in trained]:
        listed = f"step {lost[0]}" if len(lost) == 1 else f"{len(lost)} steps ({lost[0]} to {lost[-1]})"
        lines.append(f"no metrics of {listed}, though the checkpoint is that of step {step}; curves have a gap there")
    if step > 0 and not any(row.get("kind") == "eval" and row["step"] == 0 for row in rows):
        lines.append("no evaluation before training; results.json has no initial one")
    return lines
