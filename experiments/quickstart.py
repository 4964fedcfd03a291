"""Claim: on five-digit addition, verified rewards remove a habit planted in the warm-up; rewards that are permuted do not.

Command:  python -m experiments.quickstart run --out=runs/experiment     (two CPU cores: about 20 minutes)
          python -m experiments.quickstart table                         (the table, from experiments/results/quickstart.json)
Arms:     AMR-SD and GRPO, each also with permuted rewards, three seeds each; the arms of a seed start from the same warm-up.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from amrsd_jax import rng, tasks

ARMS = {
    "AMR-SD": ("configs/quickstart.py",),
    "GRPO": ("configs/quickstart_grpo.py",),
    "GRPO, rewards permuted": ("configs/control_permuted.py",),
    "AMR-SD, rewards permuted": ("configs/control_permuted.py", "--config.credit.rule=amrsd"),
}
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "quickstart.json"


def run(out: Path) -> None:
    """Runs every arm and seed (finished ones are found done), and writes the results file."""
    rows = []
    for arm, (config, *overrides) in ARMS.items():
        for seed in SEEDS:
            first, workdir = (out / f"{re.sub(r'[^a-z]+', '_', name.lower())}_{seed}" for name in ("AMR-SD", arm))
            if not workdir.exists() and first.exists():
                for part in ("warmup", "tokenizer"):
                    shutil.copytree(first / part, workdir / part)
            flags = ["-m", "amrsd_jax.main", f"--config={config}", *overrides, f"--config.seed={seed}"]
            subprocess.run([sys.executable, *flags, f"--workdir={workdir}"], check=True)
            results = json.loads((workdir / "results.json").read_text())
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "command": " ".join(["python", *flags, "--workdir=..."]),
                    "eval": {when: results["eval"][when] for when in ("initial", "final")},
                    "steps": results["steps"],
                    "savings": results["savings"],
                    "critiques": critiques(workdir),
                    "seconds_by_phase": results["seconds_by_phase"],
                    "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
                    "date": datetime.date.today().isoformat(),
                }
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def critiques(workdir: Path) -> dict[str, int]:
    """Of the usable critiques of the first step, how many name the true first wrong line, put right."""
    task = tasks.make("addition", {}, seed=0)
    usable = exact = 0
    for row in pq.read_table(workdir / "rollouts" / "step_00001.parquet").to_pylist():
        if row["reflection_kind"] == "critique" and row["reflection_status"] == "ok" and row["first_error_start"] >= 0:
            problem = tasks.Problem(row["problem_id"], row["question"], row["answer"])
            usable += 1
            exact += task.reflect(problem, row["response"], rng.host(0, "unused"))[1] == row["reflection"]
    return {"usable": usable, "exact": exact}


def table() -> str:
    """The Markdown table of the results file."""
    rows = json.loads(RESULTS.read_text())
    lines = [
        "| arm | seed | sampled accuracy before | after | greedy before | after | reflections saved |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row["eval"]["initial"], row["eval"]["final"]
        lines.append(
            f"| {row['arm']} | {row['seed']} | {before['sampled']:.3f} "
            f"| **{after['sampled']:.3f}** ({after['sampled_low']:.3f} to {after['sampled_high']:.3f}) "
            f"| {before['greedy']:.3f} | {after['greedy']:.3f} | {row['savings']['reflections']:.0%} |"
        )
    told = [row["critiques"] for row in rows if row["arm"] == "AMR-SD"]
    lines += ["", f"Of the {sum(t['usable'] for t in told)} usable critiques of AMR-SD's first steps, "
              f"{sum(t['exact'] for t in told)} name the true first wrong line."]  # fmt: skip
    one = rows[0]
    lines += ["", f"{one['eval']['final']['n']} held-out problems, {one['steps']} steps, 95 % Wilson intervals; "
              f"{one['hardware']}, {one['date']}."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/experiment"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.out)
    print(table())
