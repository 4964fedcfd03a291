"""Processes that answer one line with one line, and can be killed: for questions that may take for ever or all memory.

A worker is a new interpreter that runs a script of its own (not a fork, so threads and devices of this process do not
matter, and not `multiprocessing`, so nothing is pickled and the caller's main module is not imported again).
"""

import atexit
import queue
import select
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

READY = b"ready\n"


class Worker:
    """One process, started when it is first asked and again after it was lost.

    Args:
      script: a Python file that writes `ready` once it is, then one line for every line it reads.
    """

    def __init__(self, script: Path):
        self._command = [sys.executable, "-P", str(script)]
        self._process: subprocess.Popen | None = None

    def ask(self, line: bytes, *, seconds: float, start_seconds: float = 120.0) -> bytes | None:
        """The answer without its line end; None if it did not come within `seconds`, or the process died of the question.

        Raises:
          RuntimeError: the process does not start, within `start_seconds`.
        """
        if self._process is None:
            self._start(start_seconds)
        try:
            self._process.stdin.write(line + b"\n")
            answer = self._read(seconds)
        except BrokenPipeError:
            answer = None
        if answer is None:
            self.stop()
        return answer

    def stop(self) -> None:
        """Kills the process, if there is one, and waits for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self, seconds: float) -> None:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._process = subprocess.Popen(self._command, bufsize=0, **pipes)
        if self._read(seconds) != READY.strip():
            self.stop()
            raise RuntimeError(f"{' '.join(self._command)}: did not start; run it by hand to see why")

    def _read(self, seconds: float) -> bytes | None:
        """The next line, None at the deadline or at the end of the stream."""
        end, line, stream = time.monotonic() + seconds, b"", self._process.stdout
        while not line.endswith(b"\n"):
            if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            piece = stream.read(65536)
            if not piece:
                return None
            line += piece
        return line.rstrip(b"\n")


class Pool:
    """Workers of one script, lent to threads one at a time.

    Args:
      script: what they run.
      size: how many at most.
    """

    def __init__(self, script: Path, size: int):
        self.size = size
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # the one used last is the one that runs
        self._all = [Worker(script) for _ in range(size)]
        for worker in self._all:
            self._free.put(worker)
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def ask(self, line: bytes, *, seconds: float) -> bytes | None:
        """As `Worker.ask`, by the first worker that is free; waiting for one does not count."""
        with self._lend() as worker:
            return worker.ask(line, seconds=seconds)

    def stop(self) -> None:
        """Ends all processes; the next question starts one again."""
        with self._lock:
            for worker in self._all:
                worker.stop()

    @contextmanager
    def _lend(self):
        worker = self._free.get()
        try:
            yield worker
        finally:
            self._free.put(worker)
