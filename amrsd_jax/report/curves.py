"""Which curves the page shows: a table from metric keys to charts, and the little that turns it into SVG."""

import dataclasses
import itertools
from collections.abc import Sequence

from amrsd_jax.report.read import Record, Run
from amrsd_jax.report.svg import Series, chart

POINTS = 400  # a longer curve is shown as the means of so many stretches of steps


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: its name in the legend and its metric key; a key ending in * is every key that begins so.

    `interval` names the keys of its lower and upper end; `error` names a standard error, drawn as 1.96 of it
    either side. Keys under eval/ are drawn as points, others as lines.
    """

    name: str
    key: str
    interval: tuple[str, str] | None = None
    error: str | None = None
    mark: str = "line"


@dataclasses.dataclass(frozen=True)
class Plot:
    """One chart of the page: title, what the y axis counts, and the curves on it."""

    title: str
    y_label: str
    lines: tuple[Line, ...]
    percent: bool = False


def evaluation(name: str, key: str, mark: str) -> Line:
    return Line(name, key, (f"{key}_low", f"{key}_high"), mark=mark)


ACCURACY = Plot(
    "Accuracy",
    "share of answers that are correct",
    (
        Line("rollouts", "rollout/accuracy", ("rollout/accuracy_low", "rollout/accuracy_high")),
        evaluation("held-out, sampled", "eval/sampled", "circle"),
        evaluation("held-out, greedy", "eval/greedy", "diamond"),
    ),
    percent=True,
)
REWARD = Plot("Reward", "mean over rollouts", (Line("rollouts", "rollout/reward", error="rollout/reward_sem"),))

GROUPS = {
    "Outcome": (
        ACCURACY,
        REWARD,
        Plot(
            "Response length",
            "tokens",
            (Line("rollouts", "rollout/length"), Line("held-out", "eval/length", mark="circle")),
        ),
    ),
    "Policy": (
        Plot("Entropy", "nats per token", (Line("entropy", "policy/entropy"),)),
        Plot("KL of old to new policy", "nats per token", (Line("KL", "policy/kl"),)),
        Plot(
            "Sampler against trainer",
            "mean |difference of log-probability|, nats",
            (Line("gap", "policy/sampler_gap"),),
        ),
    ),
    "Reflection": (
        Plot(
            "Reflections",
            "share of rollouts",
            (Line("needed", "reflection/needed"), Line("usable", "reflection/usable")),
            percent=True,
        ),
        Plot("Fallbacks by reason", "share of rollouts", (Line("", "reflection/fallback_*"),), percent=True),
        Plot(
            "Rollouts that teach little",
            "share of rollouts, of groups",
            (
                Line("truncated", "rollout/truncated"),
                Line("groups of equal reward", "rollout/flat_groups"),
                Line("advantage 0", "rollout/flat_rows"),
            ),
            percent=True,
        ),
    ),
    "Credit": (
        Plot(
            "Teacher gap",
            "mean log-ratio teacher : student, nats",
            (Line("correct", "credit/gap_correct"), Line("failed", "credit/gap_failed")),
        ),
        Plot(
            "Amplification",
            "added weight",
            (Line("Δ, mean", "credit/delta"), Line("λ", "credit/lam"), Line("γ", "credit/gamma")),
        ),
        Plot("Amplified tokens", "share of tokens", (Line("amplified", "credit/amplified"),), percent=True),
    ),
    "Optimisation": (
        Plot("Loss", "objective, to be lowered", (Line("total", "loss/total"),)),
        Plot("Gradient norm", "before clipping", (Line("norm", "optimizer/grad_norm"),)),
        Plot(
            "Clipped tokens",
            "share of tokens",
            (Line("below", "policy/clip_low"), Line("above", "policy/clip_high")),
            percent=True,
        ),
    ),
    "Speed": (
        Plot("Time per step", "seconds", (Line("step", "seconds/step"),)),
        Plot("Sampling", "tokens per second", (Line("tokens", "throughput/sampled_tokens_per_second"),)),
        Plot("Learning rate", "", (Line("rate", "optimizer/learning_rate"),)),
    ),
}


def draw(plot: Plot, run: Run, **options) -> str | None:
    """The chart of `plot` as SVG, or None if the run recorded none of its keys."""
    lines = series(plot, run)
    if not any(y is not None for s in lines for y in s.y):
        return None
    return chart(lines, title=plot.title, y_label=plot.y_label, percent=plot.percent, **options)


def series(plot: Plot, run: Run) -> list[Series]:
    """The curves of `plot` with the run's values; colours follow the order of the lines."""
    found = []
    for line in plot.lines:
        records = run.evals if line.key.startswith("eval/") else run.train
        keys = [line.key]
        if line.key.endswith("*"):
            prefix = line.key[:-1]
            keys = sorted({key for record in records for key in record if key.startswith(prefix)})
        for key in keys:
            name = line.name or key.removeprefix(line.key[:-1]).replace("_", " ")
            found.append(_curve(dataclasses.replace(line, name=name, key=key), records, len(found)))
    return found


def _curve(line: Line, records: Sequence[Record], index: int) -> Series:
    def column(key: str) -> list[float | None]:
        return [record.get(key) for record in records]

    step, y = column("step"), column(line.key)
    low, high = (column(key) for key in line.interval) if line.interval else (None, None)
    if line.error:
        errors = column(line.error)
        low, high = (
            [None if v is None or e is None else v + sign * e for v, e in zip(y, errors, strict=True)]
            for sign in (-1.96, 1.96)
        )
    low, high = low or [None] * len(y), high or [None] * len(y)
    # An interval is drawn only where both ends and the value are known.
    known = [None not in triple for triple in zip(y, low, high, strict=True)]
    low, high = ([v if k else None for v, k in zip(end, known, strict=True)] for end in (low, high))
    columns = [_thin(column) for column in (step, y, low, high)]
    return Series(line.name, *columns, colour=f"s{index % 6 + 1}", mark=line.mark)


def _thin(values: Sequence[float | None]) -> list[float | None]:
    """Means of at most POINTS equal stretches, so that a long run stays a small page."""
    if len(values) <= POINTS:
        return list(values)
    edges = [round(i * len(values) / POINTS) for i in range(POINTS + 1)]
    stretches = ([v for v in values[a:b] if v is not None] for a, b in itertools.pairwise(edges))
    return [sum(known) / len(known) if known else None for known in stretches]
