"""Runs worker processes, which answer each line with a line and can be killed, for work that may hang or exhaust memory.

A worker is a new Python interpreter that runs a script. It is not forked, so this process may have threads and
devices, and it does not use `multiprocessing`, so nothing is pickled and the main module is not imported again.
"""

import atexit
import collections
import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

READY = b"ready"
_FROM_OUTSIDE = tuple(-number for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM))  # exit codes


class Worker:
    """One process, started at the first question, and started again after it was killed or died.

    Args:
      script: a Python file that writes the line `ready` once it has started, and then one line for every line it reads; or a
        function that starts such a process, with unbuffered pipes.
      arguments: of the script's command line.
      environment: variables that the process has beside those of this one.
    """

    def __init__(
        self,
        script: Path | Callable[[], subprocess.Popen],
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ):
        self._start = script if callable(script) else lambda: _python(script, arguments, environment or {})
        self._process: subprocess.Popen | None = None
        self._changes = threading.Lock()  # of `_process`, since `stop` may come from another thread

    def ask(self, line: bytes, *, seconds: float, start_seconds: float = 120.0) -> bytes | None:
        """Returns the answer without its line end; None if it takes longer than `seconds` or the process dies of the question.

        Where the process was ended from outside (SIGKILL, as by the kernel when memory is short; SIGINT or SIGTERM, which a
        scheduler may send to every process of a run), a new one is asked, once.

        Raises:
          RuntimeError: the process does not start within `start_seconds`.
        """
        for _ in range(2):
            process = self._running(start_seconds)
            end = time.monotonic() + seconds
            if _write(process, line + b"\n", end) and (answer := _read(process, end)) is not None:
                return answer
            if time.monotonic() >= end or _exit_code(process) not in _FROM_OUTSIDE:
                break
        self.stop()
        return None

    def stop(self) -> None:
        """Kills the process, if there is one, with those that it started, and waits until it has ended."""
        with self._changes:
            process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _running(self, seconds: float) -> subprocess.Popen:
        """Returns the process, a new one where there is none or it has ended."""
        with self._changes:
            process = self._process
            starts = process is None or process.poll() is not None
            if starts:
                if process is not None:
                    _end(process)
                process = self._process = self._start()
                os.set_blocking(process.stdin.fileno(), False)
        ready = not starts or _read(process, time.monotonic() + seconds) == READY
        if not ready and _exit_code(process) not in _FROM_OUTSIDE:
            self.stop()
            raise RuntimeError(f"{' '.join(process.args)}: did not start; run it by hand to see why")
        return process


def _end(process: subprocess.Popen) -> None:
    """Kills a process and all others of its session, which it started, and waits until it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # there is none left
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _python(script: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-P", str(script), *arguments]
    # The process has its own session: Ctrl-C must reach the run alone, which still needs the answers of a verification.
    return subprocess.Popen(command, bufsize=0, env={**os.environ, **environment}, start_new_session=True, **pipes)


def _write(process: subprocess.Popen, line: bytes, end: float) -> bool:
    """Writes a line; returns False at the deadline or if the process has ended."""
    while line:
        if not select.select([], [process.stdin], [], max(0.0, end - time.monotonic()))[1]:
            return False
        try:
            line = line[process.stdin.write(line) or 0 :]
        except BrokenPipeError:
            return False
    return True


def _read(process: subprocess.Popen, end: float) -> bytes | None:
    """Returns the next line without its end; None at the deadline or at the end of the stream."""
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        piece = process.stdout.read(65536)
        if not piece:
            return None
        line += piece
    return line.rstrip(b"\n")


def _exit_code(process: subprocess.Popen) -> int | None:
    """Returns the exit code of a process whose streams have ended; None if it goes on without them."""
    try:
        return process.wait(1.0)
    except subprocess.TimeoutExpired:
        return None


class Pool:
    """A pool of workers that threads share; each worker answers one thread at a time, in the order in which they ask.

    Args:
      script, arguments, environment: of each worker, see `Worker`.
      size: largest number of processes.
    """

    def __init__(
        self,
        script: Path | Callable[[], subprocess.Popen],
        size: int,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ):
        self.size = size
        self._all = [Worker(script, *arguments, environment=environment) for _ in range(size)]
        self._free = list(self._all)  # last in, first out: reuses processes that run
        self._waiting: collections.deque[queue.SimpleQueue[Worker]] = collections.deque()
        self._lock = threading.Lock()  # of both
        atexit.register(self.stop)

    def ask(self, line: bytes, *, seconds: float) -> bytes | None:
        """Asks the first free worker, see `Worker.ask`. Waiting for a worker does not count towards `seconds`."""
        place: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        with self._lock:
            if self._free:
                place.put(self._free.pop())
            else:
                self._waiting.append(place)
        worker = place.get()
        try:
            return worker.ask(line, seconds=seconds)
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().put(worker)
                else:
                    self._free.append(worker)

    def stop(self) -> None:
        """Kills all processes; the next question starts one again."""
        for worker in self._all:
            worker.stop()
