"""Question: on the tables task, does credit from reflections learn faster than GRPO and than controls without a teacher?

Command:  python -m experiments.learning_curves run    (every run that the results lack)
          python -m experiments.learning_curves table | figure                     (from results/learning_curves.json)
Axes:     --tasks, --arms, --warm, --lr, --seeds narrow the grid. An arm may set arguments of its rule: `amrsd@tau=0.05,lam=1`.
Arms:     the keys of ARMS; to compare a new rule, add a line there.

The runs of one (task, warm start) begin with the same parameters; the arms of a (task, warm start, learning rate, seed) also
share training problems, evaluation problems and sampling noise. Another version of the code can make another warm start from the
same seed, so warm starts are in series of two (0 and 1, 2 and 3), each of one version, and arms are compared within a series.
"""

import itertools
import os
import shutil
from pathlib import Path

import altair as alt
from ml_collections import ConfigDict

from amrsd_jax.files import read_json_lines
from amrsd_jax.markdown import table as markdown
from amrsd_jax.report import charts
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from configs import tables
from experiments.common import Row, Study, add_rows, circumstances, group_by, has_row, main
from experiments.curves import arms_table, curve, final, log, method, parse_arm, series

SELF, PRIVILEGED = ("", "shuffled_reflection"), ("oracle_reflection", "reference_solution")


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
LEVELS = (0.5, 0.8)
DRAWN = ("grpo", "drop_failures", "amrsd", "prefix_credit", "prefix_credit_shuffled", "oracle_prefix")
DRAWN_LR = 5e-4
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
    config.update(parse_arm(ARMS, arm))
    config.rollout.prompts = rows // config.rollout.group  # equally many rollouts for any group size
    config.seed, config.optimizer.learning_rate = 1000 + seed, lr
    config.checkpoint.every = config.report.rollouts_every = config.steps  # only the curve is kept
    validate(config)
    return config


def warm_start(task: str, warm: int, out: Path) -> Path:
    """Returns a folder whose `warmup` the runs begin with; one training step makes it if it is absent."""
    folder = out / f"warm_{task}_{warm}"
    if not (folder / "warmup").exists():
        config = tables.get_config(task)
        config.seed, config.steps, config.evaluation.every = warm, 1, 0
        with log(out):
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
    with log(out):
        results = train(config, workdir)
    if results["steps"] < config.steps:
        raise SystemExit(f"interrupted at step {results['steps']} of {config.steps}: this run has no result")
    row = curve(read_json_lines(workdir / "metrics.jsonl"), config.rollout.prompts * config.rollout.group)
    shutil.rmtree(workdir)
    return row | {"wall_seconds": round(results["wall_seconds"], 2)}


# ---------------------------------------------------------------- table and figure


def table(rows: list[Row]) -> str:
    """Formats one table per task, series of warm starts and learning rate."""
    rows = [row | {"series": row["warm"] // SERIES} for row in rows]
    return "\n\n".join(_table(group) for _, group in sorted(group_by(rows, "task", "series", "lr").items()))


def _table(rows: list[Row]) -> str:
    columns, lines = arms_table(rows, "warm", LEVELS)
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


def figure(rows: list[Row]) -> str:
    """Draws accuracy against rollouts, one panel per task; bands are bootstrap 95 % intervals over (warm start, seed).

    The warm starts are those of the first series, the one with all arms.
    """
    panels, drawn = [], [row for row in rows if row["lr"] == DRAWN_LR and row["warm"] < SERIES]
    for (task,), group in sorted(group_by(drawn, "task").items()):
        by_arm = group_by(group, "arm")
        drawn_arms = [series(by_arm[arm,]) for arm in DRAWN if (arm,) in by_arm]
        options = dict(y_title="sampled accuracy", x_title="rollouts", percent=True, width=560, height=300, static=True)
        panels.append(charts.lines(drawn_arms, title=f"Tables, {task}", **options))
    return charts.svg(alt.hconcat(*panels) if len(panels) > 1 else panels[0])


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
