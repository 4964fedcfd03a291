"""Claim: the collapse monitor fires while there still is reward to lose; over the same horizon AMR-SD's run stays.

Command:  python -m experiments.collapse run --out=runs/collapse      (two CPU cores: about 30 minutes)
          python -m experiments.collapse table                        (the table, from experiments/results/collapse.json)
          python -m experiments.collapse figure                       (docs/collapse.svg, from the same file)
Arms:     AMR-SD; the reward plus the gap of a teacher that is shown the answer (over-conditioned: it needs no working, and the
          policy is pulled after it); the same with a correct peer's solution; the first with rollbacks; the self-distillation
          methods SDPO and OPSD as published. Three seeds each; the arms of a seed start from the same warm-up. Arms whose
          rows the results file has are not run again.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from amrsd_jax.report import svg, theme
from amrsd_jax.report.figure import STYLE
from amrsd_jax.runtime.metrics import read_metrics
from configs.methods import METHODS

CONFIG = "configs/collapse.py"
ANSWER = ("--config.credit.rule=hybrid", "--config.credit.context=answer")


def published(name: str) -> tuple[str, ...]:
    """Flags for the rule and loss of a method; warm-up and lengths stay those of this experiment."""
    sections = {section: METHODS[name].get(section, {}) for section in ("credit", "loss")}
    return tuple(
        f"--config.{section}.{key}={value}" for section, fields in sections.items() for key, value in fields.items()
    )


ARMS = {  # name: what it changes in the config
    "AMR-SD": (),
    "hybrid, answer": ANSWER,
    "hybrid, peer": ("--config.credit.rule=hybrid", "--config.credit.context=peer_solution"),
    "hybrid, answer, rollback": (*ANSWER, "--config.monitor.reward.action=rollback"),
    "SDPO": published("sdpo"),
    "OPSD": published("opsd"),
}
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "collapse.json"
FIGURE = Path(__file__).parents[1] / "docs" / "collapse.svg"
SERIES = {  # what is recorded of every step
    "reward": "rollout/reward",
    "entropy": "policy/entropy",
    "length": "rollout/length",
    "gap": "monitor/gap",
    "fall": "monitor/reward",
}
GONE = 0.9  # the reward is gone when the smoothed one has lost so much of its best


def run(out: Path) -> None:
    """Runs every arm and seed that the results file does not have, and adds its row."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for arm, seed in itertools.product(ARMS, SEEDS):
        if any((row["arm"], row["seed"]) == (arm, seed) for row in rows):
            continue
        workdir = out / f"{re.sub(r'[^a-z]+', '_', arm.lower())}_{seed}"
        begun = next((path.parent for path in out.glob(f"*_{seed}/warmup")), None)
        if begun and not workdir.exists():
            for part in ("warmup", "tokenizer"):
                shutil.copytree(begun / part, workdir / part)
        flags = ["-m", "amrsd_jax.main", f"--config={CONFIG}", *ARMS[arm], f"--config.seed={seed}"]
        subprocess.run([sys.executable, *flags, f"--workdir={workdir}"], check=True)
        results = json.loads((workdir / "results.json").read_text())
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "command": " ".join(["python", *flags, "--workdir=..."]),
                "eval": {when: results["eval"][when] for when in ("initial", "best", "final")},
                "steps": results["steps"],
                "stopped": results["stopped"],
                "rollbacks": results["rollbacks"],
                **record(workdir),
                "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
                "date": datetime.date.today().isoformat(),
            }
        )
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def record(workdir: Path) -> dict:
    """Every step's numbers, the step at which each signal first fired, and the step at which the reward was gone."""
    steps = [row for row in read_metrics(workdir / "metrics.jsonl") if row["kind"] == "train"]
    fired: dict[str, int] = {}
    for row in steps:
        for key in row:
            if key.startswith("monitor/") and key.endswith("_fired") and row[key]:
                fired.setdefault(key.removeprefix("monitor/").removesuffix("_fired"), row["step"])
    series = {name: [None if row[key] is None else round(row[key], 4) for row in steps] for name, key in SERIES.items()}
    gone = next((row["step"] for row in steps if (row["monitor/reward"] or 0) >= GONE), None)
    return {"series": series, "fired": fired, "gone": gone}


def table() -> str:
    """The Markdown table of the results file."""
    rows = json.loads(RESULTS.read_text())
    lines = [
        "| arm | seed | sampled accuracy before | after | first signal | reward then | reward gone at step "
        "| steps between | all that fired, with their first step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = min(row["fired"], key=row["fired"].get, default=None)
        step, gone = row["fired"].get(first), row["gone"]
        cells = [
            row["arm"],
            row["seed"],
            f"{row['eval']['initial']['sampled']:.3f}",
            f"**{row['eval']['final']['sampled']:.3f}**",
            f"{first}, step {step}" if first else "none",
            f"{row['series']['reward'][step - 1]:.2f}" if first else "–",
            gone or "not",
            gone - step if gone and first else "–",
            ", ".join(f"{name} {at}" for name, at in sorted(row["fired"].items(), key=lambda item: item[1])) or "none",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for row in rows:
        if row["rollbacks"] or row["stopped"]:
            stopped = f", stopped at step {row['stopped']['step']}" if row["stopped"] else ""
            back = ", ".join(map(str, row["rollbacks"])) or "none"
            lines.append(f"\n{row['arm']}, seed {row['seed']}: rollbacks after steps {back}{stopped}.")
    one = rows[0]
    lines.append(
        f"\nGone: the five-step mean of the reward has lost {GONE:.0%} of its best. "
        f"{one['eval']['final']['n']} held-out problems, {max(row['steps'] for row in rows)} steps; "
        f"{one['hardware']}, {one['date']}."
    )
    return "\n".join(lines)


def figure() -> str:
    """Reward, entropy, length and gap of the first seed's runs to the end, each run's first signal marked, as SVG."""
    rows = [row for row in json.loads(RESULTS.read_text()) if row["seed"] == SEEDS[0] and not row["stopped"]]
    panels = (
        ("reward", "reward, mean over rollouts", True),
        ("entropy", "entropy, nats per token", False),
        ("length", "response length, tokens", False),
        ("gap", "gap |teacher − student|, smoothed, relative to its start", False),
    )
    width, height, parts = 520, 270, []
    for i, (name, label, percent) in enumerate(panels):
        curves = []
        for k, row in enumerate(rows):
            values, first = row["series"][name], min(row["fired"].values(), default=None)
            colour = f"s{k + 1}"
            curves.append(svg.Series(row["arm"], range(1, len(values) + 1), values, colour=colour))
            if first and values[first - 1] is not None:
                curves.append(
                    svg.Series(
                        f"signal, {row['arm']}", [first], values[first - 1 : first], colour=colour, mark="diamond"
                    )
                )
        drawn = svg.chart(curves, title=name, y_label=label, percent=percent, size=(width - 20, height - 20))
        drawn = re.sub(' data-hover="[^"]*"', "", drawn)  # no script in a picture
        place = f'x="{10 + width * (i % 2)}" y="{10 + height * (i // 2)}" width="{width - 20}" height="{height - 20}"'
        parts.append(drawn.replace("<svg ", f"<svg {place} ", 1))
    size = f'viewBox="0 0 {2 * width} {2 * height}" width="{2 * width}" height="{2 * height}"'
    style = theme.literal(theme.asset("chart.css") + STYLE)
    label = "Reward, entropy, length and gap of a run that collapses and of AMR-SD, with the monitor's first signal"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}"><style>{style}</style>'
        f'<rect class="ground" width="{2 * width}" height="{2 * height}" rx="6"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "figure"))
    parser.add_argument("--out", type=Path, default=Path("runs/collapse"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.out)
    if arguments.action != "table":
        FIGURE.write_text(figure(), encoding="utf-8")
    print(table())
