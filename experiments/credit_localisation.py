"""Question: how well does each method's per-token blame find the first wrong token, before and along training?

Command:  python -m experiments.credit_localisation run --out=runs/localisation   (two CPU cores: about 12 minutes)
          python -m experiments.credit_localisation table | figure               (from results/credit_localisation.json)
Arms:     every rule, and those that read self-written reflections also with shuffled and with perfect ones, all on the same
          failures of AMR-SD's run of the microscope config, one seed, scored by the very parameters that sampled them.
Controls: a guess; GRPO, which tells no token from another; the oracles.
Limits:   the runs keep no snapshot, so the teacher of a rule that asks for one has the parameters of step 0 throughout. Rows
          of groups that all failed count too: a rule that multiplies their advantage, which is 0, blames no token of them.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from amrsd_jax import credit
from amrsd_jax.report import svg, theme

SEEDS = (0,)
STEPS = (0, 10, 20)  # training steps done; later there are too few failures left
CONFIG = "configs/microscope.py"
# A checkpoint for every dump that is scored: the dump of step s + 1 was sampled by the policy of step s.
FLAGS = (
    "--config.steps=21",
    "--config.report.rollouts_every=1",
    "--config.checkpoint.every=10",
    "--config.checkpoint.keep=100",
)
CONTROLS = ("shuffled_reflection", "oracle_reflection")
RESULTS = Path(__file__).parent / "results" / "credit_localisation.json"
FIGURE = Path(__file__).parents[1] / "docs" / "credit_localisation.svg"
SHOWN = ("amrsd", "amrsd@shuffled_reflection", "amrsd@oracle_reflection", "rlsd", "hybrid")  # few enough to see
FIGURE_SIZE = (640, 360)


def methods() -> list[str]:
    """Every rule; those whose own context is a self-written reflection also with the two control contexts."""
    reflecting = [name for name, rule in credit.RULES.items() if rule.context == "self_reflection"]
    return [*credit.RULES, *(f"{name}@{context}" for name in reflecting for context in CONTROLS)]


def run(out: Path) -> None:
    """Trains every seed (finished ones are found done), measures its dumps, and writes the results file."""
    rows = []
    for seed in SEEDS:
        workdir = out / f"seed_{seed}"
        flags = ["-m", "amrsd_jax.main", f"--config={CONFIG}", *FLAGS, f"--config.seed={seed}"]
        subprocess.run([sys.executable, *flags, f"--workdir={workdir}"], check=True)
        for step in STEPS:
            rows += measure(workdir, step, seed, " ".join(["python", *flags, "--workdir=..."]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def measure(workdir: Path, step: int, seed: int, command: str) -> list[dict]:
    """A row per method: how well its blame, and the gap it was made from, find the first wrong token."""
    from amrsd_jax.compare import apply_all, frozen, measures

    ice = frozen.load(workdir, step=step + 1)
    params, rollouts, applied = apply_all(ice, methods())
    rows = []
    for one in applied:
        gap = one.scores.logp_teacher - one.scores.logp_student
        by_credit = measures.first_error(one.credit.token_advantage, rollouts)
        by_gap = measures.first_error(gap, rollouts, one.scores.scored)
        rows.append(
            {
                "method": one.name, "seed": seed, "step": step, "checkpoint": params.checkpoint,
                "credit": by_credit and by_credit["token"], "gap": by_gap and by_gap["token"],
                "command": command,
                "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
                "date": datetime.date.today().isoformat(),
            }
        )  # fmt: skip
    return rows


# ---------------------------------------------------------------- from the results file


def pooled(rows: list[dict], source: str, name: str) -> tuple[float | None, float | None, int]:
    """(mean, 1.96 standard errors, failures) over seeds: rollouts count alike, seeds are independent."""
    found = [row[source] for row in rows if row[source] and row[source][name] is not None]
    count = sum(one["rows"] for one in found)
    if not count:
        return None, None, 0
    mean = sum(one["rows"] * one[name] for one in found) / count
    error = sum((one["rows"] * (one[f"{name}_error"] or 0)) ** 2 for one in found) ** 0.5 / count
    return mean, error, count


def at(rows: list[dict], method: str, step: int) -> list[dict]:
    return [row for row in rows if row["method"] == method and row["step"] == step]


def table() -> str:
    """The Markdown table of the results file: before training."""
    rows = json.loads(RESULTS.read_text())
    names = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "| method | failures | blame: AUROC | blame: precision at 1 | with a context | gap: AUROC | gap: precision at 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own, cells = at(rows, name, STEPS[0]), []
        for source in ("credit", "gap"):
            (auroc, spread, count), (hit, wide, _) = (pooled(own, source, key) for key in ("auroc", "precision_at_1"))
            cells += [str(count), _cell(auroc, spread), _cell(hit, wide)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    chances = [row["credit"]["random"]["precision_at_1"] for row in at(rows, names[0], STEPS[0])]
    lines += ["", f"Before training, seeds {', '.join(map(str, SEEDS))}; a guess has AUROC 0.5 and precision "
              f"{sum(chances) / len(chances):.3f}; ± 1.96 standard errors over failures; ties averaged; "
              f"{rows[0]['hardware']}, {rows[0]['date']}."]  # fmt: skip
    return "\n".join(lines)


def _cell(value: float | None, error: float | None) -> str:
    return "–" if value is None else f"{value:.3f} ± {error:.3f}"


def figure() -> str:
    """The SVG of the results file: AUROC of blame along training."""
    rows, series = json.loads(RESULTS.read_text()), []
    for number, name in enumerate(SHOWN, start=1):
        points = [pooled(at(rows, name, step), "credit", "auroc") for step in STEPS]
        low, high = ([None if m is None else min(1, max(0, m + sign * e)) for m, e, _ in points] for sign in (-1, 1))
        series.append(svg.Series(name, STEPS, [m for m, _, _ in points], low, high, f"s{number}"))
    drawn = svg.chart(
        series, title="First wrong token found by blame", x_label="training steps done",
        y_label="AUROC of blame for the first wrong token; a guess has 0.5", size=FIGURE_SIZE,
    )  # fmt: skip
    style = f"<style>{theme.literal(theme.asset('chart.css') + '.ground{fill:var(--card)}')}</style>"
    ground = f'<rect class="ground" width="{FIGURE_SIZE[0]}" height="{FIGURE_SIZE[1]}"/>'
    return drawn.replace(">", f">{style}{ground}", 1) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table", "figure"))
    parser.add_argument("--out", type=Path, default=Path("runs/localisation"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.out)
    if arguments.action == "figure":
        FIGURE.write_text(figure(), encoding="utf-8")
        print(FIGURE)
    else:
        print(table())
