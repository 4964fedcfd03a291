"""Claim: on five-digit addition, verified rewards remove a habit planted in the warm-up; permuted rewards do not.

Command:  python -m experiments.quickstart run    (two CPU cores: about 20 minutes)
          python -m experiments.quickstart table                         (from experiments/results/quickstart.json)
Arms:     AMR-SD and GRPO, each also with permuted rewards; three seeds each. The arms of a seed start from the same warm-up.
"""

from pathlib import Path

import numpy as np

from amrsd_jax import rng
from amrsd_jax.markdown import table as markdown
from amrsd_jax.problems import Problem
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
from amrsd_jax.tasks import registry
from experiments.common import Row, Study, accuracies, group_by, main, run_arms, where

ARMS = {
    "AMR-SD": ("--config=configs/quickstart.py",),
    "GRPO": ("--config=configs/quickstart_grpo.py",),
    "GRPO, rewards permuted": ("--config=configs/control_permuted.py",),
    "AMR-SD, rewards permuted": ("--config=configs/control_permuted.py", "--config.credit.rule=amrsd"),
}
SEEDS = (0, 1, 2)


def run(out: Path, results: Path) -> None:
    """Trains every arm and seed that the results lack."""
    run_arms(out, results, ARMS, SEEDS, record)


def record(workdir: Path, results: dict) -> Row:
    """Returns the fields of a run's row."""
    return {
        "eval": {when: results["eval"][when] for when in ("initial", "final")},
        "steps": results["steps"],
        "reflections_skipped": results["reflections_skipped"],
        "critiques": critiques(workdir),
        "seconds_by_phase": results["seconds_by_phase"],
    }


def critiques(workdir: Path) -> dict[str, int]:
    """Counts the usable critiques of the first step, and those that name the true first wrong line and its correction."""
    task = registry.make("addition", {}, seed=0)
    usable = exact = 0
    for row in read_rollouts(rollout_files(workdir)[1]).to_pylist():
        if row["reflection_kind"] == "critique" and row["reflection_status"] == "ok" and row["first_error_start"] >= 0:
            problem = Problem(row["problem_id"], row["question"], row["answer"])
            usable += 1
            exact += task.reflect(problem, row["response"], rng.host(0, "unused"))[1] == row["reflection"]
    return {"usable": usable, "exact": exact}


def table(rows: list[Row]) -> str:
    """Formats one line per arm: means over seeds, and the lowest and highest seed."""
    lines = []
    for (arm,), runs in group_by(rows, "arm").items():
        lines.append([arm, *accuracies(runs), f"{np.mean([run['reflections_skipped'] for run in runs]):.0%}"])
    counts = [run["critiques"] for run in rows if run["arm"] == "AMR-SD"]
    usable, exact = (sum(count[name] for count in counts) for name in ("usable", "exact"))
    columns = ["arm", "sampled accuracy before", "after", "greedy before", "after", "reflections skipped"]
    return (
        f"{markdown(columns, lines)}\n\nMeans of {len(counts)} seeds, and the lowest and highest of them; "
        f"{rows[0]['eval']['final']['n']} held-out problems, {rows[0]['steps']} steps; {where(rows[0])}.\n"
        f"Of {usable} usable critiques in step 1 of AMR-SD's runs, {exact} name the true first wrong line."
    )


STUDY = Study("quickstart", run, table, page="README.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
