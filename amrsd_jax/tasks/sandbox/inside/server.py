"""Answers jobs, one after the other, each by a process that is forked from this one, which has loaded Python and modules once.

A job is the size of its first part in decimal and a line end; the first part, JSON: `prelude`, `source` and `limits`; and a line
of JSON, the suite of tests. The answer is a line of JSON. This process reads nothing of a job, so none finds anything of an
earlier one.
"""

import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time

from . import remote, spawner, suites

_PRELOADED = (
    "bisect collections copy dataclasses datetime decimal enum fractions functools heapq itertools math operator random re "
    "statistics string textwrap typing"
)  # what programs usually import
_MEMORY = 4 << 30  # address space of a checker in bytes, our choice
_END = 3  # exit status of a job that found the input closed


def main():
    """Answers jobs until the input is closed, or a job ends without an answer."""
    for name in _PRELOADED.split():
        importlib.import_module(name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    while True:
        select.select([0], [], [])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = job()
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            return


def job():
    """Reads a job, runs it and writes the answer; returns the exit status."""
    size = b""
    while not size.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return _END
        size += byte
    part = json.loads(_exactly(int(size)))
    limits = part["limits"]
    ours, theirs = socket.socketpair()
    folder = "/tmp" if limits["namespaces"] else tempfile.mkdtemp(prefix="program-")
    if os.fork() == 0:
        try:
            ours.close()
            spawner.serve(theirs, part["prelude"], part["source"], limits, folder)
        finally:
            os._exit(0)
    theirs.close()
    try:
        return _check(ours, limits)
    finally:
        ours.close()
        if not limits["namespaces"]:
            shutil.rmtree(folder, ignore_errors=True)
        os.wait()


def _check(connection, limits):
    """Runs the tests and writes the verdict. This process has no capability and limits of its own: data sets bring the tests."""
    signal.alarm(int(limits["total"]) + 5)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limits["total"]) + 5,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    random.seed(0)  # so that tests with random arguments have these in a resumed run too
    gc.disable()  # values of millions of parts come fast, and this process ends soon
    if limits["namespaces"]:
        spawner.drop_capabilities()
    with open(0, "rb", closefd=False) as lines:
        suite = json.loads(lines.readline())
    deadline = time.monotonic() + limits["total"]
    program = remote.Program(connection, limits["wall"], deadline)
    answer = suites.run(suite, program, limits)
    with open(1, "w", encoding="ascii", closefd=False) as out:
        out.write(json.dumps(answer) + "\n")
    return 0


def _exactly(size):
    with open(0, "rb", buffering=0, closefd=False) as stream:
        parts = []
        while size:
            parts.append(stream.read(min(size, 1 << 20)))
            size -= len(parts[-1])
        return b"".join(parts)
