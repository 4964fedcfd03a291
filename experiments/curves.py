"""Provides what studies of learning curves share: arms as changes of a config, curves, areas under them, and their intervals.

A row of such a study has `arm`, `seed`, the name of its start in a field of the study's own, and what `curve` returns.
"""

import contextlib
import copy
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from amrsd_jax import rng
from amrsd_jax.names import nearest
from amrsd_jax.report import charts
from experiments.common import Row, group_by

Interval = Callable[[Sequence[float]], tuple[float, float, float]]  # values -> mean, low, high
BASELINES = ("grpo", "drop_failures")
RESAMPLES = 4000


def method(rule: str, context: str = "", **more) -> dict:
    """Returns the fields of the config that an arm changes: the rule, its context and arguments, and other sections."""
    args = more.pop("args", {})
    return {"credit": dict(rule=rule, context=context, args=args) | more.pop("credit", {})} | more


def parse_arm(arms: dict[str, dict], name: str) -> dict:
    """Returns what an arm changes: `amrsd@tau=0.05,lam=1` is `amrsd` of `arms` with these arguments of its rule.

    Raises:
      ValueError: unknown arm, with the nearest one, or an argument that is not `name=number`.
    """
    base, _, given = name.partition("@")
    if base not in arms:
        raise ValueError(f"arm {name!r}: {nearest(base, arms)}")
    changes = copy.deepcopy(arms[base])
    for item in filter(None, given.split(",")):
        argument, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"arm {name!r}: expected name=number after the @, not {item!r}")
        changes["credit"]["args"][argument] = json.loads(value)
    return changes


@contextlib.contextmanager
def log(out: Path):
    """Redirects step lines to a log file."""
    with (out / "log.txt").open("a") as file, contextlib.redirect_stderr(file):
        yield


# ---------------------------------------------------------------- numbers of curves


def curve(metrics: list[dict], rollouts_per_step: int) -> Row:
    """Extracts a run's curve from its metrics.

    Returns:
      steps, sampled, seconds: of each evaluation, the step, the sampled accuracy and the training seconds until then (without
      evaluations, warm-up, files and the null control); problems; rollouts_per_step; gap_failed: teacher minus student on
      failed rows in nats per token, mean over the steps that have any.
    """
    evaluated, trained = ([row for row in metrics if row["kind"] == kind] for kind in ("eval", "train"))
    aside = ("seconds/report", "seconds/null_control")
    spent = np.cumsum([0.0, *(row["seconds/step"] - sum(row.get(name, 0.0) for name in aside) for row in trained)])
    gaps = [row["credit/gap_failed"] for row in trained if row.get("credit/gap_failed") is not None]
    return {
        "steps": [row["step"] for row in evaluated],
        "sampled": [row["eval/sampled"] for row in evaluated],
        "seconds": [round(float(spent[row["step"]]), 3) for row in evaluated],
        "problems": evaluated[0]["eval/n"],
        "rollouts_per_step": rollouts_per_step,
        "gap_failed": round(float(np.mean(gaps)), 4) if gaps else None,
    }


def reached(steps: Sequence[int], values: Sequence[float], level: float) -> float:
    """Returns the first evaluated step whose value is at least `level`; infinity if there is none."""
    return next((float(step) for step, value in zip(steps, values, strict=True) if value >= level), float("inf"))


def final(row: Row) -> float:
    """Returns the mean of the last two evaluations."""
    return float(np.mean(row["sampled"][-2:]))


def area(x: Sequence[float], values: Sequence[float], until: float) -> float:
    """Returns the mean of a curve from x[0] to `until` by trapezoids.

    Args:
      x: increasing, in any unit (rollouts, seconds).
      values: at x.
      until: in the same unit, above x[0] and at most x[-1].

    Raises:
      ValueError: `until` is not within the curve.
    """
    if not x[0] < until <= x[-1]:
        raise ValueError(f"area until {until}: the curve goes from {x[0]} to {x[-1]}")
    places = np.array([*(place for place in x if place < until), until])
    return float(np.trapezoid(np.interp(places, x, values), places) / (until - x[0]))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean and its bootstrap 95 % percentile interval; the ends are the mean if there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    bootstrap = stats.bootstrap(
        [values], np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng.host(0, "bootstrap")
    )
    return mean, *map(float, bootstrap.confidence_interval)


def paired(values: dict, baseline: dict, interval: Interval = interval) -> tuple[float, float, float] | None:
    """Returns the interval of the differences to a baseline over the keys that both have; None if they share none."""
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[key] - baseline[key] for key in shared]) if shared else None


def areas(rows: list[Row], start: str) -> tuple[dict, dict]:
    """Returns areas {arm: {(start, seed): mean accuracy}} at equal rollouts and at equal seconds.

    Equal means up to the end of the shortest curve of the same start and seed. A step is taken to last as long as in the
    fastest run of the same arm and start, because other work on the machine can only slow a run down.

    Args:
      start: the field that names a run's start.
    """
    pace = {key: min(map(seconds_per_step, runs)) for key, runs in group_by(rows, "arm", start).items()}
    axes = rollouts, lambda run: [step * pace[run["arm"], run[start]] for step in run["steps"]]
    result = defaultdict(dict), defaultdict(dict)
    for pair, runs in group_by(rows, start, "seed").items():
        for by_arm, x in zip(result, axes, strict=True):
            until = min(x(run)[-1] for run in runs)
            for run in runs:
                by_arm[run["arm"]][pair] = area(x(run), run["sampled"], until)
    return result


def rollouts(row: Row) -> list[int]:
    """Returns the number of rollouts before each evaluation."""
    return [step * row["rollouts_per_step"] for step in row["steps"]]


def seconds_per_step(row: Row) -> float:
    """Returns the mean training seconds of a step."""
    return row["seconds"][-1] / row["steps"][-1]


# ---------------------------------------------------------------- cells and figures


def level_cell(runs: Sequence[Row], level: float) -> str:
    """Formats the steps to a level: the lower median over runs, and how many of them reached it."""
    steps = [reached(run["steps"], run["sampled"], level) for run in runs]
    typical, count = statistics.median_low(steps), sum(map(np.isfinite, steps))
    return f"{typical:.0f} ({count}/{len(steps)})" if np.isfinite(typical) else f"never ({count}/{len(steps)})"


def interval_cell(numbers: tuple[float, float, float] | None) -> str:
    """Formats an `interval`; "" for None."""
    if numbers is None:
        return ""
    mean, low, high = numbers
    return f"{mean:.3f} ({low:.3f} to {high:.3f})" if np.isfinite(low) else f"{mean:.3f}"


def arms_table(
    rows: list[Row], start: str, levels: Sequence[float], interval: Interval = interval
) -> tuple[list[str], list[list]]:
    """Returns the columns and the lines of a table of arms: how fast and how far they learn, and by how much more than baselines.

    Args:
      rows: runs that are compared.
      start: the field that names a run's start.
      levels: accuracies of which the steps to reach them are given.
      interval: of a mean over runs.
    """
    by_arm = group_by(rows, "arm")
    by_rollouts, by_seconds = areas(rows, start)
    differences = [f"minus {baseline}" for baseline in BASELINES]
    first, *others = (f"{level:g}".lstrip("0") for level in levels)
    columns = ["arm", "runs", f"steps to {first}", *(f"to {level}" for level in others), "final", "best"]
    columns += ["area, equal rollouts", *differences, "area, equal seconds", *differences]
    columns += ["least seconds a step", "gap on failures"]
    lines = []
    for (arm,), runs in sorted(by_arm.items(), key=lambda item: -np.mean(list(by_rollouts[item[0][0]].values()))):
        cells = [arm, len(runs), *(level_cell(runs, level) for level in levels)]
        cells += [f"{np.mean([value(run) for run in runs]):.3f}" for value in (final, lambda run: max(run["sampled"]))]
        for values in (by_rollouts, by_seconds):
            cells.append(interval_cell(interval(list(values[arm].values()))))
            cells += [
                "" if arm == other else interval_cell(paired(values[arm], values[other], interval))
                for other in BASELINES
            ]
        gaps = [run["gap_failed"] for run in runs if run["gap_failed"] is not None]
        lines.append([*cells, f"{min(map(seconds_per_step, runs)):.2f}", f"{np.mean(gaps):+.3f}" if gaps else ""])
    return columns, lines


def series(runs: list[Row]) -> charts.Series:
    """Returns the mean curve of an arm's runs with its band of 95 %."""
    points = [interval(values) for values in zip(*(run["sampled"] for run in runs), strict=True)]
    return charts.Series(runs[0]["arm"], rollouts(runs[0]), *zip(*points, strict=True))
