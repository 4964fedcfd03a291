"""Question: how well does each method's per-token blame find the first wrong token, before and during training?

Command:  python -m experiments.credit_localisation run    (two CPU cores: about 12 minutes)
          python -m experiments.credit_localisation table | figure               (from results/credit_localisation.json)
Arms:     every rule, and the rules that read self-written reflections also with shuffled and with perfect ones, all on the
          same failures of AMR-SD's run of the microscope config, one seed, scored by the parameters that sampled them.
Controls: a random guess; GRPO, whose credit is equal on all tokens; the oracles.
Limits:   the runs keep no snapshot, so a rule that asks for a snapshot teacher is given the parameters of step 0. Rows of
          groups that all failed are included: their advantage is 0, so a rule that multiplies it blames no token there.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from amrsd_jax import credit
from amrsd_jax.markdown import table as markdown
from amrsd_jax.report import charts
from experiments.common import Row, Study, add_rows, circumstances, has_row, main, train, where

SEEDS = (0,)
STEPS = (0, 10, 20)  # training steps done; later there are too few failures
# Every scored file of rollouts has a checkpoint: those of step s + 1 were sampled by the policy of step s.
FLAGS = (
    "--config=configs/microscope.py",
    "--config.steps=21",
    "--config.report.rollouts_every=1",
    "--config.checkpoint.every=10",
    "--config.checkpoint.keep=100",
)
CONTROLS = ("shuffled_reflection", "oracle_reflection")
SHOWN = ("amrsd", "amrsd@shuffled_reflection", "amrsd@oracle_reflection", "rlsd", "hybrid")  # few enough to tell apart


def methods() -> list[str]:
    """Returns every rule, and the rules whose own context is a self-written reflection also with the control contexts."""
    reflecting = [name for name, rule in credit.RULES.items() if rule.context == "self_reflection"]
    return [*credit.RULES, *(f"{name}@{context}" for name in reflecting for context in CONTROLS)]


def dumps(results: Path) -> Iterator[tuple[int, int]]:
    """Returns the pairs (seed, step) that the results lack."""
    return ((seed, step) for seed in SEEDS for step in STEPS if not has_row(results, seed=seed, step=step))


def apply_to_dump(out: Path, seed: int, step: int, names: list[str]):
    """Returns the parameters, the rollouts sampled after `step` training steps, and the methods applied to them."""
    from amrsd_jax.compare import apply_all, load

    return apply_all(load.load(out / f"seed_{seed}", step=step + 1), names)


def run(out: Path, results: Path) -> None:
    """Trains every seed, and measures the steps that the results lack."""
    from amrsd_jax.compare import measures

    for seed, step in dumps(results):
        command = train([*FLAGS, f"--config.seed={seed}"], out / f"seed_{seed}")
        params, rollouts, applied = apply_to_dump(out, seed, step, methods())
        rows = []
        for one in applied:
            by_credit = measures.first_error(one.credit.token_advantage, rollouts)
            by_gap = measures.first_error(one.logprobs.gap, rollouts, one.logprobs.scored)
            row = {"method": one.name, "seed": seed, "step": step, "checkpoint": params.checkpoint, "command": command}
            row |= {"credit": by_credit and by_credit["token"], "gap": by_gap and by_gap["token"]}
            rows.append(row | circumstances())
        add_rows(results, *rows)


def pooled(rows: list[Row], source: str, name: str) -> tuple[float | None, float | None, int]:
    """Pools seeds: returns mean, 1.96 standard errors and the number of failures, each of which has the same weight."""
    measured = [row[source] for row in rows if row[source] and row[source][name] is not None]
    count = sum(one["rows"] for one in measured)
    if not count:
        return None, None, 0
    mean = sum(one["rows"] * one[name] for one in measured) / count
    error = sum((one["rows"] * (one[f"{name}_error"] or 0)) ** 2 for one in measured) ** 0.5 / count
    return mean, error, count


def select(rows: list[Row], method: str, step: int) -> list[Row]:
    """Returns the rows of one method after `step` training steps."""
    return [row for row in rows if row["method"] == method and row["step"] == step]


def table(rows: list[Row]) -> str:
    """Formats one line per method, before training."""
    lines, columns = [], ["method"]
    for source, count in (("blame", "failures"), ("gap", "with a context")):
        columns += [count, f"{source}: AUROC", f"{source}: precision at 1"]
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for source in ("credit", "gap"):
            area, precision = (pooled(select(rows, name, STEPS[0]), source, key) for key in ("auroc", "precision_at_1"))
            cells += [area[2], _cell(*area), _cell(*precision)]
        lines.append([name, *cells])
    random = [row["credit"]["random"]["precision_at_1"] for row in select(rows, rows[0]["method"], STEPS[0])]
    return (
        f"{markdown(columns, lines)}\n\nBefore training, seeds {', '.join(map(str, SEEDS))}; a random guess has AUROC 0.5 "
        f"and precision {np.mean(random):.3f}; ± 1.96 standard errors over failures; ties averaged; {where(rows[0])}."
    )


def _cell(value: float | None, error: float | None, _count: int) -> str:
    return "–" if value is None else f"{value:.3f} ± {error:.3f}"


def figure(rows: list[Row]) -> str:
    """Draws the AUROC of blame during training."""
    series = []
    for name in SHOWN:
        points = [pooled(select(rows, name, step), "credit", "auroc")[:2] for step in STEPS]
        mean = [value for value, _ in points]
        low, high = ([None if m is None else float(np.clip(m + sign * e, 0, 1)) for m, e in points] for sign in (-1, 1))
        series.append(charts.Series(name, STEPS, mean, low, high, mark="circle"))
    y_title = "AUROC of blame for the first wrong token; a random guess has 0.5"
    drawn = charts.lines(
        series, title="First wrong token found by blame", x_title="training steps done", y_title=y_title,
        width=560, height=260, static=True,
    )  # fmt: skip
    return charts.svg(drawn)


STUDY = Study("credit_localisation", run, table, page="docs/tables.md", figure=figure)

if __name__ == "__main__":
    main(STUDY, __doc__)
