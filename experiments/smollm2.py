"""Question: does a pretrained model of 135 M parameters learn a rung of the ladder on two CPU cores, and can it reflect?

Command:  python -m experiments.smollm2 run    (about two hours; needs what docs/real_models.md installs)
          python -m experiments.smollm2 table                      (from experiments/results/smollm2.json)
Arms:     AMR-SD with the model's own reflections, GRPO, and GRPO with permuted rewards as a control; three seeds each. The arms
          of a seed begin after the same reflection warm-up. AMR-SD on a harder rung and with adapters; one seed each.
Tables:   README.md; all arms, and twenty reflections of the first seed, chosen by a random number, docs/real_models.md.
"""

import json
from pathlib import Path

import numpy as np

from amrsd_jax import rng
from amrsd_jax.files import read_json_lines
from amrsd_jax.markdown import table as markdown
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
from experiments.common import Row, Study, accuracies, group_by, main, run_arms, where

ARMS = {
    "AMR-SD": ("--config=configs/smollm2.py",),
    "GRPO": ("--config=configs/smollm2.py:grpo",),
    "GRPO, rewards permuted": ("--config=configs/smollm2.py:grpo,permuted",),
}
SEEDS = (0, 1, 2)
ONCE = {  # of the first seed only
    "AMR-SD on stories": ("--config=configs/smollm2.py:stories",),
    "AMR-SD with adapters": ("--config=configs/smollm2.py:lora",),
}
SAMPLES = 20


def run(out: Path, results: Path) -> None:
    """Trains every arm and seed that the results lack."""
    run_arms(out, results, ARMS, SEEDS, record)
    run_arms(out, results, ONCE, SEEDS[:1], record)


def record(workdir: Path, results: dict) -> Row:
    """Returns the fields of a run's row."""
    steps = [row for row in read_json_lines(workdir / "metrics.jsonl") if row["kind"] == "train"]
    warmup = workdir / "reflection_warmup.json"
    return {
        "eval": {when: results["eval"][when] for when in ("initial", "final", "best")},
        "steps": results["steps"],
        "wall_seconds": results["wall_seconds"],
        "seconds_by_phase": results["seconds_by_phase"],
        "reflections": {
            name: sum(row[f"reflection/{name}"] for row in steps)
            for name in (
                "needed",
                *(key.removeprefix("reflection/") for key in steps[0] if key.startswith("reflection/unusable_")),
            )
        },
        "warmup": json.loads(warmup.read_text()) if warmup.exists() else None,
        "samples": samples(workdir),
    }


def samples(workdir: Path) -> list[dict[str, str]]:
    """Returns reflections that the run asked for, usable or not, drawn from all its saved steps."""
    rows = [
        row for path in rollout_files(workdir).values() for row in read_rollouts(path).to_pylist()
        if row["reflection_status"] not in ("", "not_needed")
    ]  # fmt: skip
    chosen = rng.host(0, "samples").permutation(len(rows))[:SAMPLES]
    fields = ("step", "question", "response", "reflection_kind", "reflection_status", "reflection")
    return [{name: rows[i][name] for name in fields} for i in sorted(chosen)]


def table(rows: list[Row]) -> str:
    """Formats the arms of three seeds."""
    return lines([row for row in rows if row["arm"] in ARMS])


def once(rows: list[Row]) -> str:
    """Formats the arms of one seed."""
    return lines([row for row in rows if row["arm"] in ONCE])


def lines(rows: list[Row]) -> str:
    """Formats one line per arm: means over seeds, and the lowest and highest seed."""
    cells = []
    for (arm,), runs in group_by(rows, "arm").items():
        needed = _sum(runs, "needed")
        shares = [1 - _unusable(runs) / needed, _sum(runs, "unusable_leak") / needed] if needed else []
        minutes = [(run["wall_seconds"] + warmup_seconds(run)) / 60 for run in runs]
        cells.append(
            [arm, *accuracies(runs), *([f"{share:.0%}" for share in shares] or ["", ""]), f"{np.mean(minutes):.0f}"]
        )
    columns = [
        "arm", "sampled accuracy before", "after", "greedy before", "after", "usable reflections", "leaks", "minutes",
    ]  # fmt: skip
    counts = sorted({len(runs) for runs in group_by(rows, "arm").values()})
    seeds = f"{' to '.join(map(str, counts))} seeds an arm: the mean, the lowest and the highest. "
    runs = "One run an arm. " if counts == [1] else seeds
    return (
        f"{markdown(columns, cells)}\n\n{runs}{rows[0]['eval']['final']['n']} answers to held-out problems. Usable and "
        f"leaks are shares of the reflections that rows needed; a leak states the answer. {where(rows[0])}."
    )


def warmup_seconds(run: Row) -> float:
    """Returns the seconds of a reflection warm-up that another arm of the seed has done for this one."""
    done_here = "warmup" in run["seconds_by_phase"]
    return 0.0 if done_here or not run["warmup"] else sum(run["warmup"]["seconds"].values())


def reflections(rows: list[Row]) -> str:
    """Formats the reflections of the first seed of AMR-SD, as they were written."""
    run = next(row for row in rows if row["arm"] == "AMR-SD")
    names = ["step", "question", "attempt", "asked for", "status", "reflection"]
    return markdown(names, [[_cell(value) for value in sample.values()] for sample in run["samples"]])


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())


def _sum(runs: list[Row], name: str) -> float:
    return sum(run["reflections"][name] for run in runs)


def _unusable(runs: list[Row]) -> float:
    return sum(_sum(runs, name) for name in runs[0]["reflections"] if name.startswith("unusable_"))


STUDY = Study("smollm2", run, table, page="README.md")
MORE = tuple(Study("smollm2", None, part, page="docs/real_models.md") for part in (once, reflections))

if __name__ == "__main__":
    main(STUDY, __doc__)
