"""Provides what experiments share: command line, results files, training runs and Markdown tables.

An experiment is a module with a `STUDY` and with its claim or question as docstring. `run` adds the rows that a results file
lacks, so a killed experiment continues where it stopped; `table` and `figure` read only that file. By default `run`
writes into its own folder; `--results=experiments/results/NAME.json` updates the committed file.
"""

import argparse
import dataclasses
import datetime
import fcntl
import functools
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from amrsd_jax.files import atomic_write
from amrsd_jax.flags import load_config
from amrsd_jax.sweep.warmups import reuse_warmups
from amrsd_jax.validate import validate

ROOT = Path(__file__).parents[1]
Row = dict


@dataclasses.dataclass(frozen=True)
class Study:
    """An experiment, for its command line and for `experiments.check`.

    Attributes:
      name: name of the module, of its results file and of its figure.
      run: (folder, results file) -> None; adds the rows that the file lacks. None where nothing is measured.
      table: rows -> Markdown.
      page: the document that contains the table, relative to the repository.
      figure: rows -> SVG; None where there is no figure.
    """

    name: str
    run: Callable[..., None] | None
    table: Callable[[list[Row]], str]
    page: str
    figure: Callable[[list[Row]], str] | None = None

    @property
    def results(self) -> Path:
        """The path of the committed results."""
        return ROOT / "experiments" / "results" / f"{self.name}.json"

    @property
    def svg(self) -> Path:
        """The path of the committed figure."""
        return ROOT / "docs" / f"{self.name}.svg"

    def outdated(self) -> list[str]:
        """Returns the committed documents that differ from those made from the committed results."""
        rows = read_rows(self.results)
        stale = [] if self.table(rows) in (ROOT / self.page).read_text() else [f"{self.page}: table of {self.name}"]
        if self.figure and _drawn(self.figure(rows)) != _drawn(self.svg.read_text()):
            stale.append(str(self.svg.relative_to(ROOT)))
        return stale


def _drawn(svg: str) -> list:
    """Returns the lines, areas and texts of a chart; its layout, left out, depends on the fonts of a machine."""
    return re.findall(r'<path d="([^"]*)"|<text[^>]*>([^<]*)<', svg)


def main(study: Study, doc: str, **axes: dict) -> None:
    """Runs a study's command line: `run`, `table` or `figure`.

    Args:
      study: the experiment.
      doc: its help text.
      **axes: further options: name -> arguments of `argparse.add_argument`; their values are passed to `study.run`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table", "figure"] if study.figure else ["run", "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/experiments") / study.name, help="folder of the runs")
    place = f"default: OUT/{study.name}.json for run, which ends with its table, else the committed file"
    parser.add_argument("--results", type=Path, help=place)
    for name, options in axes.items():
        parser.add_argument(f"--{name}", **options)
    given = parser.parse_args()
    if given.action == "run":
        results = given.results or given.out / f"{study.name}.json"
        study.run(given.out, results, **{name: getattr(given, name) for name in axes})
    else:
        results = given.results or study.results
    if given.action == "figure":
        atomic_write(study.svg, study.figure(read_rows(results)))
        print(study.svg)
    else:
        print(f"from {results}", file=sys.stderr)
        print(study.table(read_rows(results)))


def no_arguments(doc: str) -> None:
    """Parses the command line of a command without arguments, so that `--help` prints `doc` and does nothing else."""
    argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()


# ---------------------------------------------------------------- results files


def read_rows(results: Path) -> list[Row]:
    """Reads the rows of a results file; returns [] if there is none."""
    return json.loads(results.read_text()) if results.exists() else []


def add_rows(results: Path, *rows: Row) -> None:
    """Appends rows, one per line. Several processes may append to the same file."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = map(json.dumps, [*read_rows(results), *rows])
        atomic_write(results, "[\n" + ",\n".join(lines) + "\n]\n")


def has_row(results: Path, **key) -> bool:
    """Returns whether the results file has a row with these values."""
    return any(all(row[name] == value for name, value in key.items()) for row in read_rows(results))


def group_by(rows: Iterable[Row], *names: str) -> dict[tuple, list[Row]]:
    """Groups rows by the values of some of their fields."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def processor() -> str:
    """Returns the processor's kind, name, family and model, as far as the system tells them.

    Results may differ in their last digits between processors.
    """
    path, words = Path("/proc/cpuinfo"), [platform.machine()]
    text = path.read_text() if path.exists() else ""
    for field, before in (("model name", ""), ("cpu family", "family "), ("model", "model ")):
        found = re.search(rf"^{field}\s*: (.+)$", text, re.MULTILINE)
        words += [before + found[1]] if found else []
    return ", ".join(words)


def cores() -> str:
    """Says how many processors this process may use, as in `2 CPU cores`; `taskset` can limit them."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{count} CPU core" + "s" * (count > 1)


@functools.lru_cache
def circumstances(checkout: Path = ROOT) -> dict[str, str]:
    """Returns the date, the hardware and the commit; the commit ends in `-dirty` if files other than results changed."""
    git = ["git", "-C", str(checkout)]
    commit = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True, check=False).stdout.strip()
    changes = [*git, "diff", "--quiet", "HEAD", "--", ".", ":!experiments/results"]
    changed = subprocess.run(changes, capture_output=True, check=False).returncode
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{cores()}, {processor()}, Python {platform.python_version()}",
        "commit": f"{commit}-dirty" if changed else commit,
    }


# ---------------------------------------------------------------- training runs


def train(flags: Sequence[str], workdir: Path) -> str:
    """Trains in a new process, or continues a run; a finished run ends at once. Returns the command for the record."""
    command = ["-m", "amrsd_jax.main", *flags]
    subprocess.run([sys.executable, *command, f"--workdir={workdir}"], check=True)
    return " ".join(["python", *command, "--workdir=..."])


def run_arms(
    out: Path,
    results: Path,
    arms: dict[str, Sequence[str]],
    seeds: Iterable[int],
    record: Callable[[Path, dict], Row],
) -> None:
    """Trains the arms and seeds that the results lack. Arms whose warm-ups are the same start from one of them.

    Args:
      out: folder of the workdirs.
      results: file to which a row per run is added.
      arms: flags by name.
      seeds: one run of every arm each.
      record: (workdir, its results.json) -> the fields of the row besides arm, seed, command and circumstances.
    """
    for arm, seed in itertools.product(arms, seeds):
        if has_row(results, arm=arm, seed=seed):
            continue
        workdir = out / f"{re.sub(r'[^a-z]+', '_', arm.lower())}_{seed}"
        flags = [*arms[arm], f"--config.seed={seed}"]
        reuse_warmups(workdir, validate(load_config(flags)))
        command = train(flags, workdir)
        fields = record(workdir, json.loads((workdir / "results.json").read_text()))
        add_rows(results, {"arm": arm, "seed": seed, "command": command} | fields | circumstances())


# ---------------------------------------------------------------- tables


def accuracies(runs: Sequence[Row]) -> list[str]:
    """Formats accuracy, sampled and greedy, before and after training: the mean over runs, and of several the extremes."""
    values = [
        [run["eval"][when][how] for run in runs] for how in ("sampled", "greedy") for when in ("initial", "final")
    ]
    extremes = [f" ({min(few):.3f} to {max(few):.3f})" if len(few) > 1 else "" for few in values]
    return [f"{sum(few) / len(few):.3f}{both}" for few, both in zip(values, extremes, strict=True)]


def where(row: Row) -> str:
    """Formats the hardware and date of a row."""
    return f"{row['hardware']}, {row['date']}"
