"""Reads the files that a run left in its workdir.

An absent file, as in an unfinished run, is read as an empty one; a broken file is an error.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from amrsd_jax.files import read_object, whole_lines
from amrsd_jax.report.charts import number
from amrsd_jax.runtime.rollouts import rollout_files
from amrsd_jax.runtime.workdir import FORMAT

Record = dict[str, Any]


_FINITE = ("loss/total", "grad_norm")  # of every step: null says that they were not finite


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The parsed files of a run.

    Attributes:
      workdir: the folder that holds them.
      config, results, environment: config.json, results.json and environment.json; empty where there is no such file.
      train, evals: lines of metrics.jsonl of kind "train" and "eval", in step order; values that are not finite are None.
      timelines: lines of timeline.jsonl (see `runtime/clock.py`) by step, in step order.
      rollouts: Parquet files by step, in step order.
      notes: sentences that the page shows at its head.
    """

    workdir: Path
    config: Record
    results: Record
    environment: Record
    train: list[Record]
    evals: list[Record]
    timelines: dict[int, Record]
    rollouts: dict[int, Path]
    notes: list[str]


def read(workdir: Path | str, *, skip_damaged: bool = False) -> RunFiles:
    """Reads the files of a run.

    Args:
      skip_damaged: leave out damaged lines of metrics and timelines, and say so in a note.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: a file is broken, or the run was made by a version with another format; the message names the file.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such workdir")
    paths = [workdir / f"{name}.json" for name in ("config", "results", "environment")]
    config, results, environment = (read_object(path) if path.exists() else {} for path in paths)
    if config and config.get("format") != FORMAT:
        raise ValueError(
            f"{workdir}/config.json has format {config.get('format', 1)}; this version reads format {FORMAT}"
        )
    records, faults = _lines(workdir / "metrics.jsonl", {"step": int, "kind": str})
    lines, more = _lines(workdir / "timeline.jsonl", {"step": int})
    notes, ended = [], results.get("steps", 0)
    if not results:
        notes.append("There is no results.json: the run is unfinished or was stopped.")
    elif any(record["kind"] == "train" and record["step"] > ended for record in records):
        notes.append(f"results.json is of an earlier start, which ended at step {ended}: the run is unfinished.")
        results = {}
    elif not results.get("stopped") and ended < config.get("steps", 0):
        notes.append(f"The run ended at step {ended} of {config['steps']}.")
    if faults := faults + more:
        if not skip_damaged:
            raise ValueError(faults[0])
        notes.append(f"Damaged lines were left out: {len(faults)}, the first is {faults[0]}.")
    infinite = [
        (key, record["step"]) for record in records for key, value in record.items()
        if not _finite(value) or (value is None and key in _FINITE)
    ]  # fmt: skip
    records = [{key: value if _finite(value) else None for key, value in record.items()} for record in records]
    if infinite:
        key, step = infinite[0]
        notes.append(f"Metrics hold {len(infinite)} values that are not finite, first {key} at step {step}.")
    train, evals = ([record for record in records if record["kind"] == kind] for kind in ("train", "eval"))
    if skipped := sum(bool(record.get("updates/skipped")) for record in train):
        notes.append(f"Updates were skipped in {skipped} of {len(train)} steps, because they were not finite.")
    return RunFiles(
        workdir=workdir,
        config=config,
        results=results,
        environment=environment,
        train=train,
        evals=evals,
        timelines={line["step"]: line for line in lines},
        rollouts=rollout_files(workdir),
        notes=notes + monitor_notes(train, results),
    )


def monitor_notes(train: list[Record], results: Record) -> list[str]:
    """Returns sentences about the collapse monitor: signals that fired with their steps, rollbacks, and a stop."""
    notes, fired = [], {}
    for line in train:
        for key, value in line.items():
            if key.startswith("monitor/") and key.endswith("_fired") and value:
                fired.setdefault(key.removeprefix("monitor/").removesuffix("_fired"), []).append(line["step"])
    if fired:
        listed = ", ".join(f"{name} from step {steps[0]} on ({len(steps)} steps)" for name, steps in fired.items())
        notes.append(f"The collapse monitor fired: {listed}.")
    if steps := results.get("rollbacks"):
        notes.append(f"It went back after step {', '.join(map(str, steps))} to the parameters of an earlier step.")
    if stopped := results.get("stopped"):
        value, threshold = (number(stopped[key]) for key in ("value", "threshold"))
        reason = f"{stopped['signal']} was {value}, threshold {threshold}"
        notes.append(f"The collapse monitor stopped the run at step {stopped['step']}: {reason}.")
    return notes


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _lines(path: Path, fields: dict[str, type]) -> tuple[list[Record], list[str]]:
    """Returns the rows of a file of JSON lines in step order, and a message for each line that is damaged or lacks a field."""
    rows, faults = whole_lines(path)
    whole = []
    for row in rows:
        if wrong := [name for name, kind in fields.items() if not isinstance(row.get(name), kind)]:
            faults.append(
                f"{path}: {wrong[0]} = {row.get(wrong[0])!r} in {str(row)[:80]}; expected a {fields[wrong[0]].__name__}"
            )
        else:
            whole.append(row)
    return sorted(whole, key=lambda row: row["step"]), faults
