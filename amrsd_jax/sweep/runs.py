"""Trains the runs of a sweep, each in a process of its own, and summarises them."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from amrsd_jax import markdown, report
from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.report.groups import OUTCOME, group, read_runs, table
from amrsd_jax.sweep.grid import Run
from amrsd_jax.sweep.warmups import reuse_warmups


def state(run: Run) -> str:
    """Returns "finished", "unfinished" or "new"."""
    path = run.workdir / "results.json"
    try:
        results = read_object(path) if path.exists() else {}
    except ValueError:  # a damaged file is written again by the run
        results = {}
    ended = results.get("steps") == run.config.steps or results.get("stopped")
    if ended and results.get("eval", {}).get("final"):
        return "finished"
    return "unfinished" if (run.workdir / "config.json").exists() else "new"


def train_all(runs: Sequence[Run]) -> list[str]:
    """Trains or continues the runs that are not finished; returns a sentence about each that failed, and about a signal.

    The first signal ends the current run at its next safe point, and the sweep with it.
    """
    faults = []
    for number, run in enumerate(runs, start=1):
        before, head = state(run), f"[{number}/{len(runs)}] {run.name}"
        if before == "finished":
            print(f"{head}: finished before")
            continue
        reused = "".join(f", with {what}" for what in reuse_warmups(run.workdir, run.config))
        print(f"{head}: {'new' if before == 'new' else 'continues'}{reused}", flush=True)
        code, received = _train(run)
        if received:
            return [*faults, f"{signal.Signals(received).name} in {run.name}; the same command continues from there"]
        if state(run) != "finished":
            faults.append(f"{run.name} failed (exit status {code}); the same command tries it again")
            print(f"{head}: failed", file=sys.stderr)
    return faults


def _train(run: Run) -> tuple[int, int]:
    """Trains in a new process; returns its exit status, and the signal that this process received meanwhile, 0 for none."""
    received = []

    def forward(number, _):
        received.append(number)
        child.send_signal(number)

    command = [sys.executable, "-m", "amrsd_jax.main", *run.arguments, f"--workdir={run.workdir}"]
    cache = {  # compiled programs are those of the whole sweep
        "JAX_COMPILATION_CACHE_DIR": str((run.workdir.parent / ".compilation_cache").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    child = subprocess.Popen(
        command, env=cache | os.environ, start_new_session=True
    )  # Ctrl-C reaches it once, from here
    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return child.wait(), received[0] if received else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def summarise(out: Path, runs: Sequence[Run]) -> str:
    """Writes the table and the report of all runs in `out` that have begun; returns the table and the report's path.

    Args:
      runs: those of this command, which come first; others are those of earlier ones.

    Raises:
      ValueError: none has.
    """
    workdirs = [run.workdir for run in runs if run.workdir.exists()]
    workdirs += sorted(path.parent for path in out.glob("*/config.json"))  # a run that is there twice counts once
    text = markdown.table(*table(group(read_runs(workdirs)[0]), OUTCOME))
    atomic_write(out / "table.md", f"{text}\n")
    return f"{text}\n\nreport: {report.write_overlay(workdirs, out / 'report.html')}"
