"""Claim: the collapse monitor fires while there is still reward to lose; over the same horizon AMR-SD's run stays healthy.

Command:  python -m experiments.collapse run    (a CPU core: about 20 minutes)
          python -m experiments.collapse table | figure               (from experiments/results/collapse.json)
Arms:     AMR-SD; the reward plus the gap of a teacher that is given the answer (over-conditioned: it needs no working, and
          the policy is pulled after it); the same with a correct peer's solution; the first with rollbacks; the
          self-distillation methods SDPO and OPSD as published. Three seeds each; the arms of a seed share a warm-up.
"""

from pathlib import Path

import altair as alt

from amrsd_jax.config import MonitorConfig
from amrsd_jax.files import read_json_lines
from amrsd_jax.markdown import table as markdown
from amrsd_jax.report import charts
from amrsd_jax.runtime import monitor
from configs.methods import METHODS
from experiments.common import Row, Study, main, run_arms, where

CONFIG = "--config=configs/collapse.py"
ANSWER = (CONFIG, "--config.credit.rule=hybrid", "--config.credit.context=answer")


def published(name: str) -> tuple[str, ...]:
    """Returns the flags of a method's rule and loss; warm-up and lengths stay those of this experiment."""
    sections = {section: METHODS[name].get(section, {}) for section in ("credit", "loss")}
    return tuple(f"--config.{section}.{key}={value}" for section, of in sections.items() for key, value in of.items())


ARMS = {
    "AMR-SD": (CONFIG,),
    "hybrid, answer": ANSWER,
    "hybrid, peer": (CONFIG, "--config.credit.rule=hybrid", "--config.credit.context=peer_solution"),
    "hybrid, answer, rollback": (*ANSWER, "--config.monitor.reward.action=rollback"),
    "SDPO": (CONFIG, *published("sdpo")),
    "OPSD": (CONFIG, *published("opsd")),
}
SEEDS = (0, 1, 2)
SERIES = {  # recorded at every step
    "reward": "reward/mean",
    "entropy": "policy/entropy",
    "length": "response_length/mean",
    "gap": "monitor/gap",
}
PANELS = {
    "reward": "mean over rollouts",
    "entropy": "nats per token",
    "length": "response tokens",
    "gap": "|teacher − student|, smoothed, relative to its start",
}
GONE = 0.9  # the reward is gone when its smoothed value has lost this share of its best
LOWER = 0.25  # a threshold of the signal `reward` below its default


def run(out: Path, results: Path) -> None:
    """Trains every arm and seed that the results lack."""
    run_arms(out, results, ARMS, SEEDS, record)


def record(workdir: Path, results: dict) -> Row:
    """Returns the evaluations, every step's numbers, each signal's first step, and the step at which the reward was gone."""
    steps = [row for row in read_json_lines(workdir / "metrics.jsonl") if row["kind"] == "train"]
    fired: dict[str, int] = {}
    for row in steps:
        for key in row:
            if key.startswith("monitor/") and key.endswith("_fired") and row[key]:
                fired.setdefault(key.removeprefix("monitor/").removesuffix("_fired"), row["step"])
    return {
        "eval": {when: results["eval"][when] for when in ("initial", "best", "final")},
        **{name: results[name] for name in ("steps", "stopped", "rollbacks")},
        "series": {
            name: [None if row[key] is None else round(row[key], 4) for row in steps] for name, key in SERIES.items()
        },
        "fired": fired,
        "gone": next((row["step"] for row in steps if (row["monitor/reward"] or 0) >= GONE), None),
    }


def first_signal(row: Row) -> tuple[str, int] | None:
    """Returns the first signal of a run that fired, and its step; None if none did."""
    return min(row["fired"].items(), key=lambda signal: signal[1], default=None)


def replay(row: Row, threshold: float) -> tuple[float, int | None]:
    """Returns the largest loss of the averaged reward, and the step at which `reward` first fires; None if it never does."""
    config, tracks, losses, first = MonitorConfig(reward=dict(threshold=threshold)), {}, [0.0], None
    for step, reward in enumerate(row["series"]["reward"], 1):
        tracks, values, alarms = monitor.observe(tracks, {"reward": reward}, config)
        losses.append(values["monitor/reward"] or 0.0)
        first = step if alarms and first is None else first
    return max(losses), first


def table(rows: list[Row]) -> str:
    """Formats one line per run."""
    columns = [
        "arm", "seed", "sampled accuracy before", "after", "first signal", "reward then", "reward gone at step",
        "steps between", "all that fired, with their first step", "most of the reward lost", f"`reward` fires at {LOWER}",
    ]  # fmt: skip
    lines, notes = [], []
    for row in rows:
        name, step = first_signal(row) or ("none", None)
        lost, earlier = replay(row, LOWER)
        fired = ", ".join(f"{signal} {at}" for signal, at in sorted(row["fired"].items(), key=lambda item: item[1]))
        lines.append([
            row["arm"], row["seed"], f"{row['eval']['initial']['sampled']:.3f}",
            f"**{row['eval']['final']['sampled']:.3f}**", f"{name}, step {step}" if step else "none",
            f"{row['series']['reward'][step - 1]:.2f}" if step else "–", row["gone"] or "not",
            row["gone"] - step if row["gone"] and step else "–", fired or "none", f"{lost:.0%}",
            f"step {earlier}" if earlier else "not",
        ])  # fmt: skip
        if row["rollbacks"] or row["stopped"]:
            stopped = f", stopped at step {row['stopped']['step']}" if row["stopped"] else ""
            back = ", ".join(map(str, row["rollbacks"])) or "none"
            notes.append(f"{row['arm']}, seed {row['seed']}: rollbacks after steps {back}{stopped}.")
    notes.append(
        f"Gone: the five-step mean of the reward has lost {GONE:.0%} of its best. The last column is computed from the same "
        f"rewards, with that threshold in place of the default. {rows[0]['eval']['final']['n']} held-out "
        f"problems, {max(row['steps'] for row in rows)} steps; {where(rows[0])}."
    )
    return "\n\n".join([markdown(columns, lines), *notes])


def figure(rows: list[Row]) -> str:
    """Draws reward, entropy, length and gap of the first seed's completed runs; diamonds mark each run's first signal."""
    rows = [row for row in rows if row["seed"] == SEEDS[0] and not row["stopped"]]
    panels = [_panel(rows, *panel) for panel in PANELS.items()]
    return charts.svg(alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])))


def _panel(rows: list[Row], name: str, y_title: str) -> alt.LayerChart:
    curves = [charts.Series(row["arm"], range(1, len(row["series"][name]) + 1), row["series"][name]) for row in rows]
    size = dict(width=430, height=190, static=True)
    drawn = charts.lines(curves, title=name, y_title=y_title, percent=name == "reward", **size)
    signals = [
        {"x": step, "y": row["series"][name][step - 1]}
        for row in rows
        for _, step in filter(None, [first_signal(row)])
        if row["series"][name][step - 1] is not None
    ]
    points = alt.Chart(alt.InlineData(values=signals)).encode(x="x:Q", y="y:Q")
    return alt.layer(
        drawn, points.mark_point(shape="diamond", filled=True, opacity=1, size=70, color=charts.colour("ink"))
    )


STUDY = Study("collapse", run, table, page="docs/tables.md", figure=figure)

if __name__ == "__main__":
    main(STUDY, __doc__)
