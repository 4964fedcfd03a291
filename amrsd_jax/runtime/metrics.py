"""Writes the metrics of a run while it trains: JSON lines and TensorBoard events."""

import json
import os
from pathlib import Path
from typing import TextIO

from amrsd_jax.files import atomic_write, read_json_lines
from amrsd_jax.processes import only_first


class Metrics:
    """Writes a workdir's `metrics.jsonl` and `timeline.jsonl`, one object per line, and TensorBoard events.

    Lines after `step`, where the run resumes, and a half-written line are dropped first; the resumed run writes them again,
    with the same metrics. Only process 0 writes.
    """

    @only_first
    def __init__(self, workdir: Path, step: int):
        from tensorboardX import SummaryWriter  # slow to import where PyTorch is installed

        self._file = _reopen(workdir / "metrics.jsonl", step)
        self._timeline = _reopen(workdir / "timeline.jsonl", step)
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    @only_first
    def write(self, kind: str, step: int, values: dict[str, float | None]) -> None:
        """Appends a row of metrics; `kind` is "train" or "eval". None becomes null, and no TensorBoard event."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

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
    def close(self) -> None:
        """Closes all files."""
        for writer in (self._file, self._timeline, self._board):
            writer.close()


def _reopen(path: Path, step: int) -> TextIO:
    """Drops the lines after a step from a file of JSON lines, and opens it for appending."""
    kept = [row for row in read_json_lines(path) if row["step"] <= step]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept))
    return path.open("a")
