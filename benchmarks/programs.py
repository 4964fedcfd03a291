"""Measures how many short programs a sandbox tests per second.

    python -m benchmarks.programs [--programs=200] [--threads=3] [--unsafe]

Each program adds two numbers and has three assertions, as a row of MBPP. It prints programs per second of wall time, which other
load slows, and processor time per program, which it hardly changes: that of the sandbox's processes, and of this one.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags

from amrsd_jax.tasks import sandbox

PROGRAMS = flags.DEFINE_integer("programs", 200, "Number of programs.")
THREADS = flags.DEFINE_integer("threads", 3, "Threads that ask for verdicts.")
UNSAFE = flags.DEFINE_bool("unsafe", False, "Whether programs may run without a sandbox where there is none.")

TESTS = {
    "kind": "asserts",
    "setup": "",
    "tests": "assert add(1, 2) == 3\nassert add(2, 2) == 4\nassert add([1], [2]) == [1, 2]",
}
TICKS = 100  # of /proc in a second


def server_seconds() -> float:
    """Returns processor seconds of the sandbox's servers and of all their children that have ended."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"inside import server" in command and not command.startswith(b"bwrap"):
                ticks += sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            continue  # the process has ended
    return ticks / TICKS


def main(argv: list[str]) -> None:
    del argv
    kind = sandbox.choose(UNSAFE.value)
    print(kind.description)

    def passes(number: int) -> bool:
        source = f"def add(a, b):\n    return a + b  # {number}"
        return kind.run("", source, TESTS, sandbox.Limits())["passed"] == 3

    with ThreadPoolExecutor(THREADS.value) as threads:
        list(threads.map(passes, range(THREADS.value)))  # starts the servers
        begin, own, servers = time.perf_counter(), time.process_time(), server_seconds()
        passed = sum(threads.map(passes, range(PROGRAMS.value)))
        seconds, own, servers = time.perf_counter() - begin, time.process_time() - own, server_seconds() - servers
    kind.stop()
    each = 1e3 / PROGRAMS.value
    print(
        f"{passed} of {PROGRAMS.value} passed; {PROGRAMS.value / seconds:.0f} programs/s of wall time; processor time of each "
        f"{servers * each:.1f} ms in the sandbox, {own * each:.1f} ms here: {1e3 / (each * (servers + own)):.0f} programs per "
        "processor second"
    )


if __name__ == "__main__":
    app.run(main)
