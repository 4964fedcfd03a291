"""Question: on the tables task, does credit from reflections learn faster than GRPO and than controls without a teacher?

Command:  python -m experiments.learning_curves run --out=runs/learning_curves     (every run that the results lack)
          python -m experiments.learning_curves table | figure                     (from results/learning_curves.json)
Axes:     --tasks, --arms, --warm, --lr, --seeds narrow the grid. An arm may set arguments of its rule: `amrsd@tau=0.05,lam=1`.
Arms:     the keys of ARMS; to compare a new rule, add a line there.

The runs of one (task, warm start) begin with the same parameters; the arms of a (task, warm start, learning rate, seed) also
share training problems, evaluation problems and sampling noise. Another version of the code can make another warm start from the
same seed, so warm starts are in series of two (0 and 1, 2 and 3), each of one version, and arms are compared within a series.
"""

import contextlib
import copy
import itertools
import json
import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from amrsd_jax import rng
from amrsd_jax.files import read_json_lines
from amrsd_jax.names import nearest
from amrsd_jax.report import charts
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from configs import tables
from experiments.common import Row, Study, add_rows, circumstances, group_by, has_row, main, markdown

SELF, PRIVILEGED = ("", "shuffled_reflection"), ("oracle_reflection", "reference_solution")


def method(rule: str, context: str = "", **more) -> dict:
    """Returns the fields of the config that an arm changes: the rule, its context and arguments, and other sections."""
    args = more.pop("args", {})
    return {"credit": dict(rule=rule, context=context, args=args) | more.pop("credit", {})} | more


ARMS = {
    # GRPO, and controls that have no teacher
    **{rule: method(rule) for rule in ("grpo", "drop_failures", "scale_failures", "random_step")},
    # upper bounds: the true first wrong step
    **{rule: method(rule) for rule in ("oracle_first_error", "oracle_prefix")},
    # AMR-SD, and rules of our own that may take blame away and act in groups that all failed; `_shuffled`, `_oracle` and
    # `_reference` name what the teacher is given in place of the model's own reflection
    **{
        rule + ("_" + context.split("_")[0] if context else ""): method(rule, context)
        for rule in ("amrsd", "masked_blame", "prefix_credit")
        for context in (*SELF, *PRIVILEGED)
    },
    "amrsd_strong": method("amrsd", args=dict(lam=1.0, gamma=1.0)),
    "amrsd_strong_oracle": method("amrsd", "oracle_reflection", args=dict(lam=1.0, gamma=1.0)),
    # published methods
    **{rule: method(rule) for rule in ("rlsd", "rlrt", "rlcsd", "antisd", "cepo", "credit", "hybrid", "opsd")},
    "sdpo": method("sdpo", credit=dict(normalize=False)),
    "sdpg": method("sdpg", loss=dict(kl=1e-3, kl_estimator="k2")),
    "feedback_reference": method("feedback_alignment", "reference_solution", rollout=dict(group=1, admit=32)),
}
BASELINES = ("grpo", "drop_failures")
LEVELS = (0.5, 0.8)
DRAWN = ("grpo", "drop_failures", "amrsd", "prefix_credit", "prefix_credit_shuffled", "oracle_prefix")
DRAWN_LR = 5e-4
RESAMPLES = 4000
SERIES = 2  # warm starts


# ---------------------------------------------------------------- runs


def run(out: Path, results: Path, *, tasks: list, arms: list, warm: list, lr: list, seeds: list) -> None:
    """Makes the runs that the results lack. Arms vary fastest, so that an interrupted experiment leaves comparable runs.

    Args:
      out: folder of warm starts, compiled programs and the log; a run's own folder is removed when its row is written.
      results: the JSON file.
      tasks, arms, warm, lr, seeds: values of the axes.
    """
    for task, arm in itertools.product(tasks, arms):  # a wrong name stops the experiment before its first run
        configure(task, arm, warm[0], lr[0], seeds[0])
    out.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(out)
    axes = dict(seed=seeds, lr=lr, warm=warm, task=tasks, arm=arms)
    compiled: set[tuple[str, str]] = set()
    for values in itertools.product(*axes.values()):
        key = dict(zip(axes, values, strict=True))
        if has_row(results, **key):
            continue
        config, start = configure(**key), warm_start(key["task"], key["warm"], out)
        if (key["task"], key["arm"]) not in compiled:
            train_once(compiling(config), start, out)
            compiled.add((key["task"], key["arm"]))
        flags = "--tasks {task} --arms {arm} --warm {warm} --lr {lr:g} --seeds {seed}".format(**key)
        row = key | {"command": f"python -m experiments.learning_curves run {flags}"}
        row |= train_once(config, start, out) | circumstances()
        add_rows(results, row)
        print(f"{flags}: {row['sampled'][0]:.3f} -> {final(row):.3f}, {row['wall_seconds']:.1f} s", flush=True)


def configure(task: str, arm: str, warm: int, lr: float, seed: int) -> ConfigDict:
    """Returns the config of a run. `warm` does not change it: it selects the warm start, which has its own seed."""
    config = tables.get_config(task)
    rows = config.rollout.prompts * config.rollout.group
    config.update(parse_arm(arm))
    config.rollout.prompts = rows // config.rollout.group  # equally many rollouts for any group size
    config.seed, config.optimizer.learning_rate = 1000 + seed, lr
    config.checkpoint.every = config.report.rollouts_every = config.steps  # only the curve is kept
    validate(config)
    return config


def parse_arm(name: str) -> dict:
    """Parses the name of an arm: `amrsd@tau=0.05,lam=1` is arm `amrsd` with these arguments of its rule.

    Raises:
      ValueError: unknown arm, with the nearest one, or an argument that is not `name=number`.
    """
    base, _, given = name.partition("@")
    if base not in ARMS:
        raise ValueError(f"arm {name!r}: {nearest(base, ARMS)}")
    changes = copy.deepcopy(ARMS[base])
    for item in filter(None, given.split(",")):
        argument, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"arm {name!r}: expected name=number after the @, not {item!r}")
        changes["credit"]["args"][argument] = json.loads(value)
    return changes


def warm_start(task: str, warm: int, out: Path) -> Path:
    """Returns a folder whose `warmup` the runs begin with; one training step makes it if it is absent."""
    folder = out / f"warm_{task}_{warm}"
    if not (folder / "warmup").exists():
        config = tables.get_config(task)
        config.seed, config.steps, config.evaluation.every = warm, 1, 0
        with _log(out):
            train(config, folder)
    return folder


def compiling(config: ConfigDict) -> ConfigDict:
    """Returns a config of two steps that reflect on every row, to compile all programs before a timed run."""
    config = config.copy_and_resolve_references()
    config.steps, config.evaluation.every, config.credit.exact_savings = 2, 0, False
    return config


def train_once(config: ConfigDict, start: Path, out: Path) -> Row:
    """Trains from a warm start in a folder of its own, removes the folder and returns the run's curve."""
    workdir = out / f"run_{os.getpid()}"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(start / "warmup", workdir / "warmup")
    with _log(out):
        results = train(config, workdir)
    if results["steps"] < config.steps:
        raise SystemExit(f"interrupted at step {results['steps']} of {config.steps}: this run has no result")
    row = curve(read_json_lines(workdir / "metrics.jsonl"), config.rollout.prompts * config.rollout.group)
    shutil.rmtree(workdir)
    return row | {"wall_seconds": round(results["wall_seconds"], 2)}


def curve(metrics: list[dict], rollouts_per_step: int) -> Row:
    """Extracts a run's curve from its metrics.

    Returns:
      steps, sampled, seconds: of each evaluation, the step, the sampled accuracy and the training seconds until then (without
      evaluations, warm-up and files); problems; rollouts_per_step; gap_failed: teacher minus student on failed rows in nats
      per token, mean over the steps that have any.
    """
    evaluated, trained = ([row for row in metrics if row["kind"] == kind] for kind in ("eval", "train"))
    spent = np.cumsum([0.0, *(row["seconds/step"] - row.get("seconds/report", 0.0) for row in trained)])
    gaps = [row["credit/gap_failed"] for row in trained if row.get("credit/gap_failed") is not None]
    return {
        "steps": [row["step"] for row in evaluated],
        "sampled": [row["eval/sampled"] for row in evaluated],
        "seconds": [round(float(spent[row["step"]]), 3) for row in evaluated],
        "problems": evaluated[0]["eval/n"],
        "rollouts_per_step": rollouts_per_step,
        "gap_failed": round(float(np.mean(gaps)), 4) if gaps else None,
    }


@contextlib.contextmanager
def _log(out: Path):
    """Redirects step lines to a log file."""
    with (out / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
        yield


# ---------------------------------------------------------------- numbers of curves


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


def paired(values: dict, baseline: dict) -> tuple[float, float, float] | None:
    """Returns the `interval` of the differences to a baseline over the keys that both have; None if they share none."""
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[key] - baseline[key] for key in shared]) if shared else None


def areas(rows: list[Row]) -> tuple[dict, dict]:
    """Returns areas {arm: {(warm, seed): mean accuracy}} at equal rollouts and at equal seconds.

    Equal means up to the end of the shortest curve of the same (warm, seed). A step is taken to last as long as in the
    fastest run of the same arm and warm start, because other work on the machine can only slow a run down.
    """
    pace = {key: min(map(_seconds_per_step, runs)) for key, runs in group_by(rows, "arm", "warm").items()}
    axes = _rollouts, lambda run: [step * pace[run["arm"], run["warm"]] for step in run["steps"]]
    result = defaultdict(dict), defaultdict(dict)
    for pair, runs in group_by(rows, "warm", "seed").items():
        for by_arm, x in zip(result, axes, strict=True):
            until = min(x(run)[-1] for run in runs)
            for run in runs:
                by_arm[run["arm"]][pair] = area(x(run), run["sampled"], until)
    return result


def _rollouts(row: Row) -> list[int]:
    return [step * row["rollouts_per_step"] for step in row["steps"]]


def _seconds_per_step(row: Row) -> float:
    return row["seconds"][-1] / row["steps"][-1]


# ---------------------------------------------------------------- table and figure


def table(rows: list[Row]) -> str:
    """Formats one table per task, series of warm starts and learning rate."""
    rows = [row | {"series": row["warm"] // SERIES} for row in rows]
    return "\n\n".join(_table(group) for _, group in sorted(group_by(rows, "task", "series", "lr").items()))


def _table(rows: list[Row]) -> str:
    by_arm = group_by(rows, "arm")
    rollouts, seconds = areas(rows)
    differences = [f"minus {baseline}" for baseline in BASELINES]
    columns = ["arm", "runs", "steps to .5", "to .8", "final", "best", "area, equal rollouts", *differences]
    columns += ["area, equal seconds", *differences, "least seconds a step", "gap on failures"]
    lines = []
    for (arm,), runs in sorted(by_arm.items(), key=lambda item: -np.mean(list(rollouts[item[0][0]].values()))):
        cells = [arm, len(runs)]
        cells += [_level([reached(run["steps"], run["sampled"], level) for run in runs]) for level in LEVELS]
        cells += [f"{np.mean([value(run) for run in runs]):.3f}" for value in (final, lambda run: max(run["sampled"]))]
        for curves in (rollouts, seconds):
            cells.append(_with_interval(interval(list(curves[arm].values()))))
            cells += ["" if arm == other else _with_interval(paired(curves[arm], curves[other])) for other in BASELINES]
        gaps = [run["gap_failed"] for run in runs if run["gap_failed"] is not None]
        lines.append([*cells, f"{min(map(_seconds_per_step, runs)):.2f}", f"{np.mean(gaps):+.3f}" if gaps else ""])
    one = rows[0]
    dates, commits = (", ".join(sorted({row[name] for row in rows})) for name in ("date", "commit"))
    starts = " and ".join(map(str, sorted({row["warm"] for row in rows})))
    return (
        f"**{one['task']}, warm starts {starts}, learning rate {one['lr']:g}**\n\n{markdown(columns, lines)}\n\n"
        f"{one['rollouts_per_step']} rollouts a step, {one['steps'][-1]} steps, {one['problems']} held-out problems at "
        f"temperature 1. Steps to a level: lower median and how many runs reached it. Final: mean of the last two "
        f"evaluations. In brackets: bootstrap 95 % over (warm start, seed); differences are paired. {one['hardware']}; "
        f"{dates}; commit {commits}."
    )


def _level(steps: list[float]) -> str:
    typical, count = statistics.median_low(steps), sum(map(np.isfinite, steps))
    return f"{typical:.0f} ({count}/{len(steps)})" if np.isfinite(typical) else f"never ({count}/{len(steps)})"


def _with_interval(numbers: tuple[float, float, float] | None) -> str:
    return "" if numbers is None else "{:.3f} ({:.3f} to {:.3f})".format(*numbers)


def figure(rows: list[Row]) -> str:
    """Draws accuracy against rollouts, one panel per task; bands are bootstrap 95 % intervals over (warm start, seed).

    The warm starts are those of the first series, the one with all arms.
    """
    panels, drawn = [], [row for row in rows if row["lr"] == DRAWN_LR and row["warm"] < SERIES]
    for (task,), group in sorted(group_by(drawn, "task").items()):
        by_arm = group_by(group, "arm")
        series = [_series(by_arm[arm,]) for arm in DRAWN if (arm,) in by_arm]
        options = dict(y_title="sampled accuracy", x_title="rollouts", percent=True, width=560, height=300, static=True)
        panels.append(charts.lines(series, title=f"Tables, {task}", **options))
    return charts.svg(alt.hconcat(*panels) if len(panels) > 1 else panels[0])


def _series(runs: list[Row]) -> charts.Series:
    points = [interval(values) for values in zip(*(run["sampled"] for run in runs), strict=True)]
    return charts.Series(runs[0]["arm"], _rollouts(runs[0]), *zip(*points, strict=True))


STUDY = Study("learning_curves", run, table, page="docs/tables.md", figure=figure)
AXES = {
    "tasks": dict(nargs="+", default=list(tables.TABLES), choices=list(tables.TABLES)),
    "arms": dict(nargs="+", default=list(ARMS)),
    "warm": dict(nargs="+", type=int, default=[0, 1]),
    "lr": dict(nargs="+", type=float, default=[5e-4, 2.5e-4]),
    "seeds": dict(nargs="+", type=int, default=[0, 1, 2, 3, 4]),
}

if __name__ == "__main__":
    main(STUDY, __doc__, **AXES)
