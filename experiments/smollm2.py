"""Question: does a pretrained model of 135 M parameters learn a rung of the ladder on two CPU cores, and can it reflect?

Command:  python -m experiments.smollm2 run --out=runs/smollm2     (needs what docs/real_models.md installs; not run yet)
          python -m experiments.smollm2 table                      (from experiments/results/smollm2.json)
Arms:     AMR-SD with the model's own reflections, GRPO, and GRPO with permuted rewards as a control; three seeds each. The arms
          of a seed begin after the same reflection warm-up.
Tables:   README.md; twenty reflections of the first seed, chosen by a random number, docs/real_models.md.
"""

import json
from pathlib import Path

from amrsd_jax import rng
from amrsd_jax.files import read_json_lines
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
from experiments.common import Row, Study, accuracies, group_by, main, markdown, run_arms, where

ARMS = {
    "AMR-SD": ("--config=configs/smollm2.py",),
    "GRPO": ("--config=configs/smollm2.py:grpo",),
    "GRPO, rewards permuted": ("--config=configs/smollm2.py:grpo,permuted",),
}
SEEDS = (0, 1, 2)
SAMPLES = 20


def run(out: Path, results: Path) -> None:
    """Trains every arm and seed that the results lack."""
    run_arms(out, results, ARMS, SEEDS, record)


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
            for name in ("needed", *(key.removeprefix("reflection/") for key in steps[0] if "/unusable_" in key))
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
    """Formats one line per arm: means over seeds, and the lowest and highest seed."""
    lines = []
    for (arm,), runs in group_by(rows, "arm").items():
        needed = sum(run["reflections"]["needed"] for run in runs)
        shares = [1 - _unusable(runs) / needed, _sum(runs, "unusable_leak") / needed] if needed else []
        minutes = [run["wall_seconds"] / 60 for run in runs]
        lines.append(
            [
                arm,
                *accuracies(runs),
                *([f"{share:.0%}" for share in shares] or ["", ""]),
                f"{min(minutes):.0f} to {max(minutes):.0f}",
            ]
        )
    columns = [
        "arm",
        "sampled accuracy before",
        "after",
        "greedy before",
        "after",
        "usable reflections",
        "leaks",
        "minutes",
    ]
    return (
        f"{markdown(columns, lines)}\n\nMeans of {len({run['seed'] for run in rows})} seeds, and the lowest and highest of "
        f"them; {rows[0]['eval']['final']['n']} answers to held-out problems, {rows[0]['steps']} steps; {where(rows[0])}."
    )


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
REFLECTIONS = Study("smollm2", None, reflections, page="docs/real_models.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
