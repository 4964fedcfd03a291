"""Question: on the tables task, does credit from reflections learn faster than GRPO, and than the controls that have none?

Command:  python -m experiments.learning_curves run --out=runs/learning_curves     (every run that is not in the results yet)
          python -m experiments.learning_curves table
          python -m experiments.learning_curves figure --svg=docs/learning_curves.svg
Axes:     --tasks, --arms, --warm, --lr, --seeds narrow the grid. An arm may set arguments of its rule: `amrsd@tau=0.05,lam=1`.
Arms:     the keys of ARMS; a new rule is a line there.

The runs of one (task, warm start) begin with the same parameters; the arms of a (task, warm start, learning rate, seed) also
share training problems, evaluation problems and sampling noise. Results are written run by run, to experiments/results.
"""

import argparse
import contextlib
import copy
import datetime
import fcntl
import functools
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amrsd_jax.build import build
from amrsd_jax.checks import validate
from amrsd_jax.config import resolve
from amrsd_jax.names import nearest
from amrsd_jax.report import theme
from amrsd_jax.report.figure import STYLE
from amrsd_jax.report.svg import Series, chart
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.metrics import read_metrics
from amrsd_jax.start import initial_params
from amrsd_jax.train import train
from configs import tables
from experiments.aggregate import area, final, interval, middle, paired, reached

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "learning_curves.json"

SELF, PRIVILEGED = ("", "shuffled_reflection"), ("oracle_reflection", "reference_solution")


def method(rule: str, context: str = "", **more) -> dict:
    """What differs in the config: the rule, its context and arguments, and fields of other sections."""
    args = more.pop("args", {})
    return {"credit": dict(rule=rule, context=context, args=args) | more.pop("credit", {})} | more


# name -> what differs in the config
ARMS = {
    # GRPO, and controls that have no teacher
    **{rule: method(rule) for rule in ("grpo", "drop_failures", "scale_failures", "random_step")},
    # upper bounds: the true first wrong step
    **{rule: method(rule) for rule in ("oracle_first_error", "oracle_prefix")},
    # AMR-SD, and rules of our own that may take blame away and act in dead groups; `_shuffled`, `_oracle`, `_reference`: what
    # the teacher sees in place of the model's own reflection
    **{
        rule + ("_" + context.split("_")[0] if context else ""): method(rule, context)
        for rule in ("amrsd", "masked_blame", "prefix_credit")
        for context in (*SELF, *PRIVILEGED)
    },
    "amrsd_strong": method("amrsd", args=dict(lam=1.0, gamma=1.0)),
    "amrsd_strong_oracle": method("amrsd", "oracle_reflection", args=dict(lam=1.0, gamma=1.0)),
    # methods that it is compared with
    **{rule: method(rule) for rule in ("rlsd", "rlrt", "rlcsd", "antisd", "cepo", "credit", "hybrid", "opsd")},
    "sdpo": method("sdpo", credit=dict(normalize=False)),
    "sdpg": method("sdpg", loss=dict(kl=1e-3, kl_estimator="k2")),
    "feedback_reference": method("feedback_alignment", "reference_solution", rollout=dict(group=1, admit=32)),
}
BASELINES = ("grpo", "drop_failures")
LEVELS = (0.5, 0.8)
DRAWN = (
    "grpo",
    "drop_failures",
    "amrsd",
    "prefix_credit",
    "prefix_credit_shuffled",
    "oracle_prefix",
)  # at most six colours
KEY = ("task", "arm", "warm", "lr", "seed")


# ---------------------------------------------------------------- runs


def run(out: Path, results: Path, **axes: list) -> None:
    """Runs what the results do not have yet. Arms are innermost: a killed experiment leaves comparable ones.

    Args:
      out: warm starts, compiled programs and the log are kept there; a run's own folder goes when its row is written.
      results: the JSON file.
      **axes: task, arm, warm, lr, seed: their values.
    """
    out.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(out)
    rehearsed: set = set()
    for seed, lr, warm, task, arm in itertools.product(*(axes[name] for name in ("seed", "lr", "warm", "task", "arm"))):
        key = dict(task=task, arm=arm, warm=warm, lr=lr, seed=seed)
        if any(all(row[name] == key[name] for name in KEY) for row in load(results)):
            continue
        config, start = configure(**key), warm_start(task, warm, out)
        if (task, arm) not in rehearsed:
            once(rehearsal(config), start, out)
            rehearsed.add((task, arm))
        row = key | {"command": command(**key)} | once(config, start, out) | circumstances()
        add(results, row)
        print(
            f"{task} {arm} warm {warm} lr {lr:g} seed {seed}: {row['sampled'][0]:.3f} -> {final(row['sampled']):.3f}, "
            f"{row['wall_seconds']:.1f} s",
            flush=True,
        )


def configure(task: str, arm: str, warm: int, lr: float, seed: int) -> ConfigDict:
    """The config of a run. Its seed is no warm start's: the table and its habits have a seed of their own."""
    del warm  # only says which parameters the run begins with
    config = tables.get_config(task)
    rows = config.rollout.prompts * config.rollout.group
    config.update(parse_arm(arm))
    config.rollout.prompts = rows // config.rollout.group  # equal rollouts, however many a prompt
    config.seed, config.optimizer.learning_rate = 1000 + seed, lr
    config.checkpoint.every = config.report.rollouts_every = config.steps  # nothing is kept but the curve
    validate(config)
    return config


def parse_arm(name: str) -> dict:
    """`amrsd@tau=0.05,lam=1` is arm `amrsd` with these arguments of its rule.

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
    """The folder whose `warmup` the runs begin with; made if absent."""
    folder = out / f"warm_{task}_{warm}"
    if not (folder / "warmup").exists():
        config = tables.get_config(task)
        config.seed = warm
        validate(config)
        config, clock = resolve(config), Clock()
        with quiet(out):
            initial_params(build(config, folder), folder, clock)
        print(f"warm start {warm} of {task}: {clock.total['warmup']:.0f} s", flush=True)
    return folder


def rehearsal(config: ConfigDict) -> ConfigDict:
    """Two steps of a run with every row reflected on: afterwards all that it needs is compiled, and seconds mean work."""
    config = config.copy_and_resolve_references()
    config.steps, config.evaluation.every, config.credit.exact_savings = 2, 0, False
    return config


def once(config: ConfigDict, start: Path, out: Path) -> dict:
    """One run from a warm start, in a folder of its own that is removed afterwards; returns its curve."""
    workdir = out / f"run_{os.getpid()}"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(start / "warmup", workdir / "warmup")
    with quiet(out):
        results = train(config, workdir)
    if results["steps"] < config.steps:
        raise SystemExit(f"interrupted at step {results['steps']} of {config.steps}: no result is kept of this run")
    row = curve(read_metrics(workdir / "metrics.jsonl"), config.rollout.prompts * config.rollout.group)
    shutil.rmtree(workdir)
    return row | {"wall_seconds": round(results["wall_seconds"], 2)}


def curve(metrics: list[dict], rollouts_per_step: int) -> dict:
    """A run's curve from its metrics.

    Returns:
      steps, sampled, seconds: step, sampled accuracy and training seconds so far (evaluations, warm-up and files left out)
      of each evaluation; problems, rollouts_per_step; gap_failed, gap_correct: teacher minus student in nats a token,
      mean over the steps that have any; needed, usable: shares of rows that were to have a context, that had one.
    """
    evaluated = [row for row in metrics if row["kind"] == "eval"]
    trained = [row for row in metrics if row["kind"] == "train"]
    spent = np.cumsum([0.0, *(row["seconds/step"] - row.get("seconds/report", 0.0) for row in trained)])

    def mean(name):
        values = [row[name] for row in trained if row.get(name) is not None]
        return round(float(np.mean(values)), 4) if values else None

    return {
        "steps": [row["step"] for row in evaluated],
        "sampled": [row["eval/sampled"] for row in evaluated],
        "seconds": [round(float(spent[row["step"]]), 3) for row in evaluated],
        "problems": evaluated[0]["eval/n"],
        "rollouts_per_step": rollouts_per_step,
        "gap_failed": mean("credit/gap_failed"),
        "gap_correct": mean("credit/gap_correct"),
        "needed": mean("reflection/needed"),
        "usable": mean("reflection/usable"),
    }


def command(task: str, arm: str, warm: int, lr: float, seed: int) -> str:
    """How to repeat one run."""
    return f"python -m experiments.learning_curves run --tasks {task} --arms {arm} --warm {warm} --lr {lr:g} --seeds {seed}"


@functools.lru_cache
def circumstances() -> dict[str, str]:
    """Date, hardware, and the commit that ran; `-dirty` after it if files other than results were changed."""
    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", ".", ":!experiments/results"], check=False
    ).returncode
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
        "commit": f"{commit}-dirty" if changed else commit,
    }


@contextlib.contextmanager
def quiet(out: Path):
    """Step lines go to a log instead of the screen."""
    with (out / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
        yield


def load(results: Path) -> list[dict]:
    """Rows of a results file, [] if there is none."""
    return json.loads(results.read_text()) if results.exists() else []


def add(results: Path, row: dict) -> None:
    """Adds a row, a line each; other processes may add theirs to the same file."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = [json.dumps(each) for each in [*load(results), row]]
        draft = results.with_suffix(".tmp")
        draft.write_text("[\n" + ",\n".join(lines) + "\n]\n")
        draft.replace(results)


# ---------------------------------------------------------------- table


def table(rows: list[dict]) -> str:
    """A Markdown table for each task and learning rate."""
    parts = [summarize(group) for _, group in sorted(grouped(rows, "task", "lr").items())]
    return "\n\n".join(parts)


def summarize(rows: list[dict]) -> str:
    """The table of one task and learning rate: an arm a line."""
    by_arm = grouped(rows, "arm")
    rollouts, seconds = areas(rows)
    lines = [
        f"**{rows[0]['task']}, learning rate {rows[0]['lr']:g}**",
        "",
        "| arm | runs | steps to .5 | to .8 | final | best | area, equal rollouts | minus grpo | minus drop_failures "
        "| area, equal seconds | minus grpo | minus drop_failures | least seconds a step | gap on failures |",
        "|" + "---|" * 14,
    ]
    for (arm,), runs in sorted(by_arm.items(), key=lambda item: -np.mean(list(rollouts[item[0][0]].values()))):
        cells = [arm, len(runs)]
        cells += [_level([reached(run["steps"], run["sampled"], level) for run in runs]) for level in LEVELS]
        cells += [f"{np.mean([final(run['sampled']) for run in runs]):.3f}"]
        cells += [f"{np.mean([max(run['sampled']) for run in runs]):.3f}"]
        for curves in (rollouts, seconds):
            cells.append(_with_interval(interval(list(curves[arm].values()))))
            cells += ["" if arm == other else _with_interval(paired(curves[arm], curves[other])) for other in BASELINES]
        cells.append(f"{min(map(_seconds_a_step, runs)):.2f}")
        gaps = [run["gap_failed"] for run in runs if run["gap_failed"] is not None]
        cells.append(f"{np.mean(gaps):+.3f}" if gaps else "")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", _caption(rows)]
    return "\n".join(lines)


def areas(rows: list[dict]) -> tuple[dict, dict]:
    """Areas {arm: {(warm, seed): mean accuracy}} at equal rollouts and at equal seconds.

    Equal means: up to the shortest curve of the same (warm, seed). A step takes what it took in the fastest run of the same
    arm and warm start: the machine did other things beside, which may slow a run down and never speeds it up.
    """
    pace = {key: min(map(_seconds_a_step, runs)) for key, runs in grouped(rows, "arm", "warm").items()}
    rollouts, seconds = defaultdict(dict), defaultdict(dict)
    for pair, runs in grouped(rows, "warm", "seed").items():
        for found, x in (
            (rollouts, _rollouts),
            (seconds, lambda run: [step * pace[run["arm"], run["warm"]] for step in run["steps"]]),
        ):
            until = min(x(run)[-1] for run in runs)
            for one in runs:
                found[one["arm"]][pair] = area(x(one), one["sampled"], until)
    return rollouts, seconds


def grouped(rows: list[dict], *names: str) -> dict[tuple, list[dict]]:
    """Rows by the values of some of their fields."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def _rollouts(row: dict) -> list[int]:
    return [step * row["rollouts_per_step"] for step in row["steps"]]


def _seconds_a_step(row: dict) -> float:
    return row["seconds"][-1] / row["steps"][-1]


def _level(steps: list[float]) -> str:
    typical, count = middle(steps), sum(map(np.isfinite, steps))
    return f"{typical:.0f} ({count}/{len(steps)})" if np.isfinite(typical) else f"never ({count}/{len(steps)})"


def _with_interval(numbers: tuple[float, float, float] | None) -> str:
    return "" if numbers is None else "{:.3f} ({:.3f} to {:.3f})".format(*numbers)


def _caption(rows: list[dict]) -> str:
    one = rows[0]
    dates, commits = (", ".join(sorted({row[name] for row in rows})) for name in ("date", "commit"))
    return (
        f"{one['rollouts_per_step']} rollouts a step, {one['steps'][-1]} steps, {one['problems']} held-out problems at "
        f"temperature 1. Steps to a level: lower median and how many runs reached it. Final: mean of the last two "
        f"evaluations. In brackets: bootstrap 95 % over (warm start, seed); differences are paired. {one['hardware']}; "
        f"{dates}; commit {commits}."
    )


# ---------------------------------------------------------------- figure


def figure(rows: list[dict], arms: list[str], lr: float) -> str:
    """Accuracy against rollouts as SVG text: a panel a task, a line an arm, bands are bootstrap 95 % over (warm, seed).

    Raises:
      ValueError: there is nothing to draw.
    """
    rows = [row for row in rows if row["arm"] in arms and row["lr"] == lr]
    if not rows:
        raise ValueError(f"figure: no result of {', '.join(arms)} at learning rate {lr:g}")
    width, height, margin = 500, 380, 20
    panels = []
    for (task,), group in sorted(grouped(rows, "task").items()):
        x = margin + len(panels) * (width + margin)
        lines = [line(by_arm, f"s{arms.index(arm) + 1}") for (arm,), by_arm in grouped(group, "arm").items()]
        drawn = chart(
            sorted(lines, key=lambda series: series.colour), title=f"Accuracy on tables, {task}", x_label="rollouts",
            y_label=f"{task}: sampled accuracy", percent=True, size=(width, height),
        )  # fmt: skip
        panels.append(drawn.replace("<svg ", f'<svg x="{x}" y="{margin}" width="{width}" height="{height}" ', 1))
    total = margin + len(panels) * (width + margin)
    style = theme.literal(theme.asset("chart.css") + STYLE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height + 2 * margin}" width="{total}" '
        f'height="{height + 2 * margin}" role="img" aria-label="Learning curves"><style>{style}</style>'
        f'<rect class="ground" width="{total}" height="{height + 2 * margin}" rx="6"/>{"".join(panels)}</svg>\n'
    )


def line(runs: list[dict], colour: str) -> Series:
    """The mean curve of an arm and its band."""
    points = [interval(list(values)) for values in zip(*(run["sampled"] for run in runs), strict=True)]
    mean, low, high = (list(column) for column in zip(*points, strict=True))
    return Series(runs[0]["arm"], _rollouts(runs[0]), mean, low, high, colour=colour)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "figure"))
    parser.add_argument("--out", type=Path, default=Path("runs/learning_curves"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--svg", type=Path, default=Path("docs/learning_curves.svg"))
    parser.add_argument("--tasks", nargs="+", default=list(tables.TABLES), choices=list(tables.TABLES))
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--warm", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--lr", nargs="+", type=float, default=[5e-4, 2.5e-4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    given = parser.parse_args(arguments)
    if given.action == "run":
        arms = given.arms or list(ARMS)
        axes = dict(task=given.tasks, arm=arms, warm=given.warm, lr=given.lr, seed=given.seeds)
        for key in itertools.product(*axes.values()):  # a wrong name stops the experiment before its first run
            configure(**dict(zip(axes, key, strict=True)))
        run(given.out, given.results, **axes)
    elif given.action == "figure":
        given.svg.write_text(figure(load(given.results), given.arms or list(DRAWN), given.lr[0]), encoding="utf-8")
    else:
        print(table(load(given.results)))


if __name__ == "__main__":
    main(sys.argv[1:])
