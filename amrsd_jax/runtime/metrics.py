"""What a run reports while it runs: JSON lines, TensorBoard, a clock per phase, one line per step."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from amrsd_jax.processes import only_first


class Metrics:
    """The metrics of a workdir: `metrics.jsonl`, one object a line, and TensorBoard events.

    Opening it for a run that resumes after `step` drops every later line (and a half-written one): they will be written
    again, the same. Process 0 writes, on the others nothing happens.
    """

    @only_first
    def __init__(self, workdir: Path, step: int):
        from tensorboardX import SummaryWriter  # which imports PyTorch where that is installed

        self._path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(self._path) if row["step"] <= step]
        draft = self._path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
        draft.replace(self._path)
        self._file = self._path.open("a")
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
    def sync(self) -> None:
        """Forces everything written so far onto the disk: a checkpoint never knows more than its metrics."""
        os.fsync(self._file.fileno())

    @only_first
    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict]:
    """Rows of a metrics file, [] if there is none. A last line without its end was cut off by a kill and is left out.

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


class Clock:
    """Seconds per phase: of the current step, and of the run.

    Attributes:
      step, total: phase to seconds.
    """

    def __init__(self, total: dict[str, float] | None = None):
        self.step: dict[str, float] = {}
        self.total = dict(total or {})

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times its body, also when it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self.step[name] = self.step.get(name, 0.0) + seconds
            self.total[name] = self.total.get(name, 0.0) + seconds

    def lap(self) -> dict[str, float]:
        """Seconds per phase since the last lap."""
        lap, self.step = self.step, {}
        return lap
