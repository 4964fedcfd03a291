"""Question: does credit from reflections help a pretrained model of 135 M parameters more than GRPO and dropped failures do?

Command:  python -m experiments.real_model run --out=runs/real_model       (every run that the results lack, 3 to 5 minutes each
          on two quiet cores; needs what docs/real_models.md installs)
          python -m experiments.real_model table | figure                  (from experiments/results/real_model.json)
Axes:     --rungs, --arms, --lr, --seeds narrow the grid. An arm may set arguments of its rule: `amrsd@tau=0.05,lam=1`.
Arms:     the keys of ARMS; five seeds for those of CORE, three for the others.

All runs on a rung begin with the same parameters, SmolLM2 after one reflection warm-up of its own seed; the arms of a seed also
share training problems, held-out problems and sampling noise.
"""

import itertools
import os
import shutil
from pathlib import Path

import altair as alt
import numpy as np
from ml_collections import ConfigDict

from amrsd_jax.compare import load
from amrsd_jax.compare.measures import TAU, auroc
from amrsd_jax.experiment import make_experiment
from amrsd_jax.files import read_json_lines
from amrsd_jax.markdown import table as markdown
from amrsd_jax.report import charts
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
from amrsd_jax.start import initial_params
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from configs import smollm2
from experiments.common import Row, Study, add_rows, circumstances, group_by, has_row, main
from experiments.curves import arms_table, curve, final, log, method, parse_arm, series

RUNGS = {  # the rungs that are trained: the config's words, and the rungs on which forgetting is measured
    "sums": ("", ("stories", "largest", "letter")),
    "steps": ("steps", ("sums", "largest", "letter")),
}
CORE = {
    **{rule: method(rule) for rule in ("grpo", "drop_failures", "amrsd")},
    "amrsd_shuffled": method("amrsd", "shuffled_reflection"),
    "amrsd_null": method("amrsd", "null"),
    "prefix_credit": method("prefix_credit"),
    "prefix_credit_reference": method("prefix_credit", "reference_solution"),
}
ARMS = CORE | {
    "scale_failures": method("scale_failures"),
    "amrsd_oracle": method("amrsd", "oracle_reflection"),
    "amrsd_reference": method("amrsd", "reference_solution"),
    "amrsd_peer": method("amrsd", "peer_solution"),
    "amrsd_no_threshold": method("amrsd", args=dict(tau=0.0)),
    "amrsd_symmetric": method("amrsd", args=dict(gamma=0.2)),
    "amrsd_strong": method("amrsd", args=dict(lam=1.0, gamma=1.0)),
    "prefix_credit_shuffled": method("prefix_credit", "shuffled_reflection"),
    **{rule: method(rule) for rule in ("rlsd", "sdpo", "credit", "srpo", "distilled_rl", "entropy_tokens")},
    "opd_reference": method("opd", "reference_solution"),
}
STEPS, EVALUATED = 12, 4
FIRST_SEED = 100  # the learning rate was chosen on seeds 0 to 2
OTHERS_SEEDS = 3
LEVELS = (0.5, 0.7)
LR = 4e-5
LEVEL = 0.95  # of the quantile of the null control's gap
SERIES = ("reward/mean", "policy/entropy", "response_length/mean", "reflection/usable", "credit/amplified")


# ---------------------------------------------------------------- runs


def run(out: Path, results: Path, *, rungs: list, arms: list, lr: list, seeds: list) -> None:
    """Makes the runs that the results lack. Arms vary fastest, so that an interrupted experiment leaves comparable runs.

    Args:
      out: folder of the starts, compiled programs and the log; a run's own folder is removed when its row is written.
      results: the JSON file.
      rungs, arms, lr, seeds: values of the axes.
    """
    for rung, arm in itertools.product(rungs, arms):  # a wrong name stops the experiment before its first run
        configure(rung, arm, lr[0], seeds[0])
    out.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(out)
    for rate, few, seed, rung, arm in itertools.product(lr, (CORE, ARMS), seeds, rungs, arms):
        key = dict(rung=rung, arm=arm, lr=rate, seed=seed)
        others = arm.partition("@")[0] not in CORE
        if others != (few is ARMS) or (others and seed >= OTHERS_SEEDS) or has_row(results, **key):
            continue
        flags = f"--rungs {rung} --arms {arm} --lr {rate:g} --seeds {seed}"
        row = key | {"command": f"python -m experiments.real_model run {flags}"}
        row |= train_once(configure(**key), start_of(rung, out), out) | circumstances()
        add_rows(results, row)
        print(f"{flags}: {row['sampled'][0]:.3f} -> {final(row):.3f}, {row['wall_seconds']:.0f} s", flush=True)


def configure(rung: str, arm: str, lr: float, seed: int) -> ConfigDict:
    """Returns the config of a run."""
    words, others = RUNGS[rung]
    config = smollm2.get_config(words)
    config.update(parse_arm(ARMS, arm))
    config.seed, config.steps, config.optimizer.learning_rate = FIRST_SEED + seed, STEPS, lr
    config.evaluation.update(problems=96, every=EVALUATED)
    config.evaluation.benchmarks = {
        name: dict(task=dict(name="ladder", args=dict(rung=name)), problems=32, every=0) for name in others
    }
    config.reflection.null_control_every = EVALUATED
    config.checkpoint.update(every=STEPS, keep=1)
    config.report.rollouts_every = EVALUATED
    validate(config)
    return config


def start_of(rung: str, out: Path) -> Path:
    """Returns a folder with the reflection warm-up that the runs on a rung begin with; makes it if it is absent."""
    folder = out / f"start_{rung}"
    if not (folder / "reflection_warmup").exists():
        folder.mkdir(exist_ok=True)
        config = configure(rung, "grpo", LR, 0)
        config.seed = 0
        with log(out):
            initial_params(make_experiment(validate(config), folder), folder, Clock())
    return folder


def train_once(config: ConfigDict, start: Path, out: Path) -> Row:
    """Trains from a start in a folder of its own, removes the folder and returns what was measured."""
    workdir = out / f"run_{os.getpid()}"
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir()
    shutil.copytree(start / "reflection_warmup", workdir / "reflection_warmup", copy_function=os.link)
    shutil.copy(start / "reflection_warmup.json", workdir)
    with log(out):
        results = train(config, workdir)
        if results["steps"] < config.steps:
            raise SystemExit(f"interrupted at step {results['steps']} of {config.steps}: this run has no result")
        metrics = read_json_lines(workdir / "metrics.jsonl")
        row = curve(metrics, config.rollout.prompts * config.rollout.group) | {
            "greedy": [results["eval"][when]["greedy"] for when in ("initial", "final")],
            "series": {name: series_of(metrics, name) for name in SERIES},
            "found": [found(path) for path in rollout_files(workdir).values()],
            "kl_to_start": kl_to_start(workdir),
            "others": {
                name: [selected[when]["sampled"] for when in ("initial", "final")]
                for name, selected in results["eval"]["benchmarks"].items()
            },
        }
    shutil.rmtree(workdir)
    return row | {"wall_seconds": round(results["wall_seconds"], 2)}


def series_of(metrics: list[dict], name: str) -> list[float | None]:
    """Returns a metric of every training step, rounded; None where a step has none."""
    values = [row.get(name) for row in metrics if row["kind"] == "train"]
    return [None if value is None else _rounded(value) for value in values]


def found(path: Path) -> dict:
    """Measures in saved rollouts how well teachers find the first error of failures, and how large the control's gap is.

    Returns:
      step; failures, those with a context whose tokens are partly right; auroc: means over them of the AUROC of -gap at the first
      error, for the teacher's `gap`, for the `null` control's, and for their difference `contrast`; above_tau: share of the
      failures' tokens at which -gap exceeds 0.2 nats, for gap and null; null_quantile: that of LEVEL of the control's -gap, in
      nats. Values are None where nothing was measured.
    """
    rows, areas = read_rollouts(path).to_pylist(), {"gap": [], "null": [], "contrast": []}
    tokens = {"gap": [], "null": []}
    for row in rows:
        if row["gap"] is None or row["first_error_start"] < 0:
            continue
        gaps = {"gap": np.array(row["gap"]), "null": np.array(row["null_gap"])}
        for name, gap in gaps.items():
            tokens[name].append(-gap)
        wrong = np.zeros(len(row["gap"]), bool)
        wrong[row["first_error_start"] : row["first_error_end"]] = True
        for name, gap in (gaps | {"contrast": gaps["gap"] - gaps["null"]}).items():
            if (area := auroc(-gap, wrong)) is not None:
                areas[name].append(area)
    joined = {name: np.concatenate(values) for name, values in tokens.items() if values}
    return {
        "step": rows[0]["step"],
        "failures": len(areas["gap"]),
        "auroc": {name: _rounded(np.mean(values)) if values else None for name, values in areas.items()},
        "above_tau": {name: _rounded((values > TAU).mean()) for name, values in joined.items()},
        "null_quantile": _rounded(np.quantile(joined["null"], LEVEL)) if joined else None,
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def kl_to_start(workdir: Path) -> float:
    """Estimates KL(policy || policy at step 0), in nats per token, from the rollouts of a run's last step.

    The estimator is exp(d) - 1 - d with d = log-prob at step 0 - log-prob when sampled ("k3", http://joschu.net/blog/kl-approx.html).
    """
    loaded = load.load(workdir, step=max(rollout_files(workdir)))
    experiment, rollouts = loaded.experiment, loaded.rollouts
    start = initial_params(experiment, workdir, Clock())
    logprobs, _ = experiment.scorer.score_rollouts(experiment.policy, start, rollouts)
    difference = (logprobs - rollouts.sampler_logprobs)[rollouts.mask > 0]
    return _rounded(np.mean(np.expm1(difference) - difference))


# ---------------------------------------------------------------- tables and figure


def table(rows: list[Row]) -> str:
    """Formats two tables per rung and learning rate: how arms learn, and what happens meanwhile."""
    return "\n\n".join(_tables(group) for _, group in sorted(group_by(rows, "rung", "lr").items()))


def _tables(rows: list[Row]) -> str:
    one = rows[0]
    dates, commits = (", ".join(sorted({row[name] for row in rows})) for name in ("date", "commit"))
    return (
        f"**{one['rung']}, learning rate {one['lr']:g}**\n\n{markdown(*arms_table(rows, 'rung', LEVELS))}\n\n"
        f"{one['rollouts_per_step']} rollouts a step, {one['steps'][-1]} steps, {one['problems']} held-out problems at "
        f"temperature 0.8. Steps to a level: lower median and how many runs reached it. Final: mean of the last two "
        f"evaluations. In brackets: bootstrap 95 % over seeds; differences are paired. {one['hardware']}; {dates}; commit "
        f"{commits}.\n\n{markdown(*_meanwhile(rows))}\n\n"
        f"AUROC of -gap for the first error of failures at the first and at the last step with rollouts; shares of tokens whose "
        f"credit AMR-SD raises and of reflections that are usable, means over steps; entropy and length at the last step; KL to "
        f"the start in nats per token; greedy accuracy; change of the sampled accuracy on rungs that are not trained."
    )


def _meanwhile(rows: list[Row]) -> tuple[list[str], list[list]]:
    others = list(rows[0]["others"])
    columns = ["arm", "AUROC first", "last", "amplified", "usable", "entropy", "length", "KL", "greedy before", "after"]
    lines = []
    for (arm,), runs in group_by(rows, "arm").items():

        def mean(values, form=".2f"):
            values = [value for value in values if value is not None]
            return format(np.mean(values), form) if values else ""

        def steps(name, runs=runs):
            return [value for run in runs for value in run["series"][name]]

        lines.append(
            [
                arm,
                *(mean([run["found"][end]["auroc"]["gap"] for run in runs]) for end in (0, -1)),
                *(mean(steps(f"{name}"), ".0%") for name in ("credit/amplified", "reflection/usable")),
                mean([run["series"]["policy/entropy"][-1] for run in runs]),
                mean([run["series"]["response_length/mean"][-1] for run in runs], ".1f"),
                mean([run["kl_to_start"] for run in runs], ".3f"),
                *(mean([run["greedy"][end] for run in runs]) for end in (0, 1)),
                *(mean([run["others"][name][1] - run["others"][name][0] for run in runs], "+.2f") for name in others),
            ]
        )
    return [*columns, *others], lines


def figure(rows: list[Row]) -> str:
    """Draws accuracy against rollouts, one panel per rung; bands are bootstrap 95 % intervals over seeds."""
    panels = []
    for (rung,), group in sorted(group_by([row for row in rows if row["lr"] == LR], "rung").items()):
        by_arm = group_by(group, "arm")
        drawn = [series(by_arm[arm,]) for arm in CORE if (arm,) in by_arm]
        options = dict(y_title="sampled accuracy", x_title="rollouts", percent=True, width=560, height=300, static=True)
        panels.append(charts.lines(drawn, title=f"SmolLM2-135M, {rung}", **options))
    return charts.svg(alt.hconcat(*panels) if len(panels) > 1 else panels[0])


STUDY = Study("real_model", run, table, page="docs/tables.md", figure=figure)
AXES = {
    "rungs": dict(nargs="+", default=list(RUNGS), choices=list(RUNGS)),
    "arms": dict(nargs="+", default=list(ARMS)),
    "lr": dict(nargs="+", type=float, default=[LR]),
    "seeds": dict(nargs="+", type=int, default=[0, 1, 2, 3, 4]),
}

if __name__ == "__main__":
    main(STUDY, __doc__, **AXES)
