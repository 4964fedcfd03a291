"""Writes the results of a run, `results.json`, from its metrics, and says them in words."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amrsd_jax.files import atomic_write, read_json_lines
from amrsd_jax.processes import only_first
from amrsd_jax.runtime.lines import without_signal


@only_first
def write_results(
    workdir: Path, step: int, seconds: dict[str, float], wall_seconds: float, *, last: int, over: bool = True, **more
) -> dict:
    """Writes `results.json` and returns its content: evaluations, steps, seconds, share of reflections skipped, and `more`.

    Args:
      step, over: training steps done, and whether the run has ended there or was interrupted.
      last: see `evaluated`.
    """
    rows = read_json_lines(workdir / "metrics.jsonl")
    trained = [row for row in rows if row["kind"] == "train"]
    skipped = [row["reflection/skipped"] for row in trained]
    results = {
        "eval": evaluated([row for row in rows if row["kind"] == "eval"], last, step if over else None),
        "steps": step,
        "steps_without_signal": sum(map(without_signal, trained)),
        "wall_seconds": wall_seconds,
        "seconds_by_phase": seconds,
        "reflections_skipped": float(np.mean(skipped)) if skipped else None,
    } | more
    atomic_write(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def evaluated(rows: Sequence[dict], last: int, end: int | None, *, latest: bool = False) -> dict:
    """Returns selected evaluations of a run, each with its step.

    Args:
      rows: the run's metrics of kind "eval".
      last: number of evaluations that mean_of_last averages, the one before training left out.
      end: number of steps after which the run has ended; None for an interrupted run, which has no final evaluation.
      latest: take each benchmark's latest evaluation after step 0 as its final one.

    Returns:
      initial (after step 0), final (after step `end`), best (by sampled accuracy; chosen on the test split itself, so an
      optimistic number) and mean_of_last, of the run's own test split; None for an evaluation that was not made.
      best_by_validation, where the task has a validation split: the test split's evaluation at the step that was best on
      validation. benchmarks: by name, those four of every other benchmark.
    """
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        of_step: dict[str, dict] = {}
        for key, value in row.items():
            if key.startswith("eval/"):
                *benchmark, metric = key.removeprefix("eval/").split("/")
                of_step.setdefault("/".join(benchmark), {"step": row["step"]})[metric] = value
        for name, values in of_step.items():
            by_name.setdefault(name, []).append(values)
    test = by_name.pop("", [])
    results = _select(test, last, end, latest)
    if "validation" in by_name:
        results["best_by_validation"] = _of_step(test, _best(by_name["validation"])["step"])
    return results | {"benchmarks": {name: _select(values, last, end, latest) for name, values in by_name.items()}}


def _of_step(evaluations: Sequence[dict], step: int | None) -> dict | None:
    return next((values for values in evaluations if values["step"] == step), None)


def _select(evaluations: Sequence[dict], last: int, end: int | None, latest: bool) -> dict:
    """Returns the initial, final and best evaluation of a benchmark, and the mean of the last ones."""
    counted = [values for values in evaluations if values["step"]][-last:]
    known: dict[str, list[float]] = {}  # a verifier's own score may be missing in some of them
    for values in counted:
        for name, value in values.items():
            if name != "step" and not name.endswith(("_low", "_high")) and value is not None:
                known.setdefault(name, []).append(value)  # without intervals: a mean of intervals is not an interval
    mean = {name: float(np.mean(values)) for name, values in known.items()}
    steps = {"steps": [values["step"] for values in counted]}
    end = counted[-1]["step"] if latest and counted else end
    return {
        "initial": _of_step(evaluations, 0),
        "final": _of_step(evaluations, end),
        "best": _best(evaluations),
        "mean_of_last": (steps | mean) if counted else None,
    }


def _best(evaluations: Sequence[dict]) -> dict | None:
    """Returns the evaluation with the highest accuracy; of equal ones the last, as `Progress.compare` does for checkpoints."""
    return max(reversed(evaluations), key=lambda values: values["sampled"], default=None)


def outcome(results: dict) -> list[str]:
    """Returns the console lines about a run from its results: one for its own test split, and one for each other benchmark."""
    lines = []
    evaluations = results["eval"]
    for name, selected in {"": evaluations, **evaluations["benchmarks"]}.items():
        before, after, best, mean = (selected[key] for key in ("initial", "final", "best", "mean_of_last"))
        if best is None:
            lines.append("no evaluation yet")
            continue
        first, last = (f"{one['sampled']:.3f}" if one else "(not evaluated)" for one in (before, after))
        line = f"{first} -> {last} on {best['n']} "
        line += f"{name or 'held-out'} problems; best {best['sampled']:.3f} at step {best['step']}"
        if mean:
            line += f", mean of the last {len(mean['steps'])} evaluations {mean['sampled']:.3f}"
        if chosen := selected.get("best_by_validation"):
            line += f", best by validation {chosen['sampled']:.3f} at step {chosen['step']}"
        lines.append(f"sampled accuracy {line}")
    if without := results["steps_without_signal"]:
        lines.append(f"no learning signal in {without} of {results['steps']} steps")
    return lines
