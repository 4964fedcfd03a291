"""Runs worker processes, which answer each line with a line and can be killed, for work that may hang or exhaust memory.

A worker is a new Python interpreter that runs a script. It is not forked, so this process may have threads and
devices, and it does not use `multiprocessing`, so nothing is pickled and the main module is not imported again.
"""

import atexit
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

READY = b"ready"


class Worker:
    """One process, started at the first question, and started again after it was killed or died.

    Args:
      script: a Python file that writes the line `ready` once it has started, and then one line for every line it reads.
    """

    def __init__(self, script: Path):
        self._command = [sys.executable, "-P", str(script)]
        self._process: subprocess.Popen | None = None

    def ask(self, line: bytes, *, seconds: float, start_seconds: float = 120.0) -> bytes | None:
        """Returns the answer without its line end; None if it takes longer than `seconds` or the process dies.

        Raises:
          RuntimeError: the process does not start within `start_seconds`.
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
        """Kills the process, if there is one, and waits until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self, seconds: float) -> None:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._process = subprocess.Popen(self._command, bufsize=0, **pipes)
        if self._read(seconds) != READY:
            self.stop()
            raise RuntimeError(f"{' '.join(self._command)}: did not start; run it by hand to see why")

    def _read(self, seconds: float) -> bytes | None:
        """Returns the next line; None at the deadline or at the end of the stream."""
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
    """A pool of workers that threads share; each worker answers one thread at a time.

    Args:
      script: the script that each worker runs, see `Worker`.
      size: largest number of processes.
    """

    def __init__(self, script: Path, size: int):
        self.size = size
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # last in, first out: reuses processes that run
        self._all = [Worker(script) for _ in range(size)]
        for worker in self._all:
            self._free.put(worker)
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def ask(self, line: bytes, *, seconds: float) -> bytes | None:
        """Asks the first free worker, see `Worker.ask`. Waiting for a worker does not count towards `seconds`."""
        worker = self._free.get()
        try:
            return worker.ask(line, seconds=seconds)
        finally:
            self._free.put(worker)

    def stop(self) -> None:
        """Kills all processes; the next question starts one again."""
        with self._lock:
            for worker in self._all:
                worker.stop()
