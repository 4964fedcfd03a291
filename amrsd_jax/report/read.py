"""Read what a run left in its workdir: config, results, metrics and timelines.

A section that is absent (an unfinished run) is empty here and explained by the page; a section that is
*wrong* is an error that names the file and the line.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amrsd_jax.report import axes

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's workdir, parsed.

    Attributes:
      workdir: where it was read from.
      config: nested dict of the frozen config; empty if there is no config.json.
      results: dict of results.json; empty while the run is unfinished.
      train, evals: the metrics lines of either kind, one per step, in step order.
      timelines: steps laid out in time (see `runtime/clock.py`), by step, in step order.
      rollouts: the parquet files by step, in step order.
      notes: sentences about what a reader of the page must know before trusting it.
    """

    workdir: Path
    config: Record
    results: Record
    train: list[Record]
    evals: list[Record]
    timelines: dict[int, Record]
    rollouts: dict[int, Path]
    notes: list[str]


def read(workdir: Path | str) -> Run:
    """The run in `workdir`; FileNotFoundError if there is no such folder, ValueError for a bad file."""
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such workdir")
    config, results = _json(workdir / "config.json"), _json(workdir / "results.json")
    metrics, notes = read_metrics(workdir / "metrics.jsonl")
    timelines, cut = read_lines(workdir / "timeline.jsonl", _timeline)
    notes += cut
    if not results:
        notes.insert(0, "There is no results.json: the run is unfinished or was stopped.")
    if skipped := sum(line.get("optimizer/skipped") or 0 for line in metrics["train"]):
        notes.append(f"The optimizer skipped {skipped:g} of {len(metrics['train'])} steps.")
    notes += monitored(metrics["train"], results)
    rollouts = {}
    for path in (workdir / "rollouts").glob("step_*.parquet"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            rollouts[int(match[1])] = path
    steps = {line["step"]: line for line in sorted(timelines, key=lambda line: line["step"])}
    return Run(
        workdir, config, results, metrics["train"], metrics["eval"], steps, dict(sorted(rollouts.items())), notes
    )


def monitored(train: list[Record], results: Record) -> list[str]:
    """What the collapse monitor did: a sentence for its signals with the steps of each, one for rollbacks, one for a stop."""
    notes, fired = [], {}
    for line in train:
        for key, value in line.items():
            if key.startswith("monitor/") and key.endswith("_fired") and value:
                fired.setdefault(key.removeprefix("monitor/").removesuffix("_fired"), []).append(line["step"])
    if fired:
        listed = ", ".join(f"{name} from step {steps[0]} on ({len(steps)} steps)" for name, steps in fired.items())
        notes.append(f"The collapse monitor fired: {listed}.")
    if steps := results.get("rollbacks"):
        notes.append(f"It went back after step {', '.join(map(str, steps))} to the parameters of an earlier one.")
    if stopped := results.get("stopped"):
        value, threshold = (axes.number(stopped[key]) for key in ("value", "threshold"))
        what = f"{stopped['signal']} was {value}, threshold {threshold}"
        notes.append(f"The collapse monitor stopped the run at step {stopped['step']}: {what}.")
    return notes


def read_metrics(path: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """Returns ({"train": lines, "eval": lines}, notes) of a metrics.jsonl.

    Lines are read as `read_lines` does. A resumed run may write a step twice: the later line counts. A value that is
    not finite becomes None and is noted.
    """
    if not path.exists():
        return {"train": [], "eval": []}, ["There is no metrics.jsonl: no curve can be drawn."]
    records, notes = read_lines(path, _metrics_record)
    by_step: dict[tuple[str, int], Record] = {}
    infinite = []
    for record in records:
        for key, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                infinite.append((key, record["step"]))
                record[key] = None
        by_step[record["kind"], record["step"]] = record
    if infinite:
        key, step = infinite[0]
        notes.append(f"Metrics hold {len(infinite)} values that are not finite, first {key} at step {step}.")
    records = [by_step[key] for key in sorted(by_step, key=lambda key: key[1])]
    return {kind: [r for r in records if r["kind"] == kind] for kind in ("train", "eval")}, notes


def read_lines(path: Path, parse: Callable[[str], Record]) -> tuple[list[Record], list[str]]:
    """Returns (records, notes) of a file of JSON lines, none if there is no file.

    A run that was killed while writing leaves half a last line, without a newline: it is left out and noted.
    Any other line that `parse` refuses raises ValueError with the file and the line number.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    records, notes = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(parse(line))
        except ValueError as error:
            # split leaves "" last unless the newline is missing; no half of an object is JSON
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                notes.append(f"Line {number} of {path.name}, the last, is half-written and was left out.")
                continue
            raise ValueError(f"{path}:{number}: {error}") from None
    return records, notes


def dig(tree: Any, *paths: str, default: Any = None) -> Any:
    """Returns the first value found in nested dicts at one of the dotted `paths`, else `default`."""
    for path in paths:
        node = tree
        for name in path.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        if node is not None:
            return node
    return default


def _metrics_record(line: str) -> Record:
    record = _record(line)
    if record.get("kind") not in ("train", "eval"):
        raise ValueError(f"expected kind 'train' or 'eval', found {record.get('kind')!r}")
    for key, value in record.items():
        if "/" in key and value is not None and not isinstance(value, int | float):
            raise ValueError(f"expected a number or null for {key}, found {value!r}")
    return record


def _timeline(line: str) -> Record:
    record = _record(line)
    wanted = {"seconds", "phases", "beside", "slots", "busy"}
    if missing := wanted - record.keys():
        raise ValueError(f"expected a step laid out in time, which lacks {', '.join(sorted(missing))}")
    return record


def _record(line: str) -> Record:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, found {line[:40]!r}")
    if type(record.get("step")) is not int:
        raise ValueError(f"expected an integer step, found {record.get('step')!r}")
    return record


def _json(path: Path) -> Record:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, found {type(value).__name__}")
    return value
