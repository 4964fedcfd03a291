"""What a run reports while it runs: JSON lines of metrics and of timelines, TensorBoard."""

import json
import os
from pathlib import Path
from typing import TextIO

from amrsd_jax.processes import only_first


class Metrics:
    """The metrics of a workdir: `metrics.jsonl` and `timeline.jsonl`, one object a line, and TensorBoard events.

    Opening it for a run that resumes after `step` drops every later line (and a half-written one): they will be written
    again, metrics the same. Process 0 writes, on the others nothing happens.
    """

    @only_first
    def __init__(self, workdir: Path, step: int):
        from tensorboardX import SummaryWriter  # which imports PyTorch where that is installed

        self._file = _reopen(workdir / "metrics.jsonl", step)
        self._timeline = _reopen(workdir / "timeline.jsonl", step)
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    @only_first
    def write(self, kind: str, step: int, values: dict[str, float | None]) -> None:
        """Appends one row; kind is "train" or "eval"."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    @only_first
    def write_timeline(self, step: int, timeline: dict) -> None:
        """Appends a step as `Clock.timeline` has it: about 3 KB."""
        self._timeline.write(json.dumps({"step": step, **timeline}) + "\n")
        self._timeline.flush()

    @only_first
    def sync(self) -> None:
        """Forces everything written so far onto the disk: a checkpoint never knows more than its metrics."""
        for file in (self._file, self._timeline):
            os.fsync(file.fileno())

    @only_first
    def close(self) -> None:
        for writer in (self._file, self._timeline, self._board):
            writer.close()


def _reopen(path: Path, step: int) -> TextIO:
    """A file of JSON lines, to be appended to after those up to a step."""
    kept = [row for row in read_metrics(path) if row["step"] <= step]
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
    draft.replace(path)
    return path.open("a")


def read_metrics(path: Path) -> list[dict]:
    """Rows of a file of JSON lines, [] if there is none. A last line without its end was cut off by a kill and is left out.

    Raises:
      ValueError: naming file and line, if another line is not a JSON object.
    """
    rows = []
    text = path.read_text() if path.exists() else ""
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number}: not JSON ({error.msg})") from error
    return rows
