"""Defines the curves of the page: a table from metrics to charts."""

import dataclasses
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import altair as alt

from amrsd_jax.report.charts import BLAME, CREDIT, SERIES, Series, lines
from amrsd_jax.report.read import Record, RunFiles

POINTS = 400  # a longer curve is drawn as the means of this many stretches of steps
REASONS = 5  # of unusable reflections that get a curve each


@dataclasses.dataclass(frozen=True)
class Curve:
    """Describes a curve: its name in the legend, its metric, the metrics of its interval's ends, and its colour and mark.

    `ends` says that these are a lowest and a highest value, so that a stretch of steps has them too. An interval of a mean is
    left out of a long run: that of a stretch's mean is not the mean of its intervals.
    """

    name: str
    metric: str
    interval: tuple[str, str] | None = None
    ends: bool = False
    colour: str = ""
    mark: str = "line"


@dataclasses.dataclass(frozen=True)
class Plot:
    """One chart of the page: title, what the y axis counts, and its curves."""

    title: str
    y_title: str
    curves: tuple[Curve, ...]
    percent: bool = False


ACCURACY = Plot(
    "Accuracy",
    "share of answers that are correct",
    (
        Curve("rollouts", "reward/accuracy", ("reward/accuracy_low", "reward/accuracy_high")),
        Curve("held-out, sampled", "eval/sampled", ("eval/sampled_low", "eval/sampled_high"), mark="circle"),
        Curve("held-out, greedy", "eval/greedy", ("eval/greedy_low", "eval/greedy_high"), mark="diamond"),
    ),
    percent=True,
)
LENGTHS = (
    Curve(
        "rollouts, mean; band: shortest to longest", "response_length/mean", ("response_length/min", "response_length/max"), True
    ),
    Curve("held-out, mean", "eval/length", mark="circle"),
)  # fmt: skip
GAPS = (
    Curve("correct rollouts", "credit/gap_correct", colour=CREDIT),
    Curve("failed rollouts", "credit/gap_failed", colour=BLAME),
    Curve("correct, no text in the prompt", "credit/null_gap_correct", mark="circle"),
    Curve("failed, no text in the prompt", "credit/null_gap_failed", mark="diamond"),
)
NO_SIGNAL = (
    Curve("truncated rollouts", "response_length/clip_ratio"),
    Curve("groups without an advantage", "groups/zero_advantage"),
)
CLIPPED = (Curve("below", "policy/clip_frac_low"), Curve("above", "policy/clip_frac_high"))
# A curve with one of these in its metric is drawn for each set or benchmark of a run.
SET, BENCHMARK = "{set}", "{benchmark}"
GROUPS = {
    "Outcome": (
        ACCURACY,
        Plot("Reward", "over rollouts", (Curve("mean", "reward/mean"), Curve("standard deviation", "reward/std"))),
        Plot("Response length", "tokens", LENGTHS),
    ),
    "Data sets": (
        Plot("Accuracy of rollouts by set", "share of correct answers", (Curve("", f"reward/{SET}/accuracy"),), percent=True),
        Plot("Held-out accuracy by set, sampled", "share of correct answers", (Curve("", f"eval/{SET}/sampled"),), percent=True),
        Plot("Response length by set", "tokens, mean", (Curve("", f"response_length/{SET}/mean"),)),
        Plot("Groups without an advantage by set", "share of groups", (Curve("", f"groups/{SET}/zero_advantage"),), percent=True),
    ),
    "Benchmarks": (
        Plot("Accuracy on benchmarks, sampled", "share that is correct", (Curve("", f"eval/{BENCHMARK}/sampled"),), percent=True),
        Plot("Accuracy on benchmarks, greedy", "share that is correct", (Curve("", f"eval/{BENCHMARK}/greedy"),), percent=True),
    ),
    "Policy": (
        Plot("Entropy", "nats per token", (Curve("entropy", "policy/entropy"),)),
        Plot("KL of old to new policy", "nats per token", (Curve("KL", "policy/kl_old_new"),)),
        Plot("KL to the reference policy", "nats per token", (Curve("KL", "policy/kl_to_reference"),)),
        Plot("Sampler against trainer", "mean |difference|, nats per token", (Curve("difference", "policy/sampler_mismatch"),)),
    ),
    "Reflection": (
        Plot("Rollouts that need a reflection", "share of rollouts", (Curve("needed", "reflection/needed"),), percent=True),
        Plot("Usable reflections", "share of the needed ones", (Curve("usable", "reflection/usable"),), percent=True),
        Plot("Unusable reflections by reason", "share of rollouts", (Curve("", "reflection/unusable_*"),), percent=True),
        Plot("Rollouts with little signal", "share of rollouts or groups", NO_SIGNAL, percent=True),
    ),
    "Credit": (
        Plot("Teacher gap", "mean log-ratio teacher : student, nats", GAPS),
        Plot("Mean added weight Δ", "", (Curve("Δ", "credit/delta"),)),
        Plot("Rates λ and γ", "", (Curve("λ", "credit/lam"), Curve("γ", "credit/gamma"))),
        Plot("Amplified tokens", "share of tokens", (Curve("amplified", "credit/amplified"),), percent=True),
    ),
    "Optimisation": (
        Plot("Loss", "total", (Curve("total", "loss/total"),)),
        Plot("Divergence from the teacher", "nats per token", (Curve("divergence", "loss/divergence"),)),
        Plot("Gradient norm", "before clipping", (Curve("norm", "grad_norm"),)),
        Plot("Clipped tokens", "share of tokens", CLIPPED, percent=True),
        Plot("Learning rate", "", (Curve("rate", "learning_rate"),)),
    ),
    "Speed": (
        Plot("Time per step", "seconds", (Curve("step", "seconds/step"),)),
        Plot("Throughput", "tokens per second", (Curve("sampler", "tokens/sampled_per_s"), Curve("whole step", "tokens/s"))),
        Plot("Peak memory", "GiB of a device", (Curve("peak", "memory/peak_gib"),)),
        Plot("Model FLOP utilisation", "share of the device's peak", (Curve("MFU", "mfu"),), percent=True),
    ),
}  # fmt: skip


def groups(run: RunFiles) -> dict[str, list[Plot]]:
    """Returns the charts of GROUPS that fit the run; those of a rule's metrics that GROUPS does not know are added to Credit."""
    known = {curve.metric for plots in GROUPS.values() for plot in plots for curve in plot.curves}
    found = {title: list(plots) for title, plots in GROUPS.items() if _expanded(plots[0].curves[0], run)}
    metrics = dict.fromkeys(key for record in run.train for key in record if key.startswith("credit/"))
    found["Credit"] += [Plot(key, "", (Curve(key, key),)) for key in metrics if key not in known]
    return found


def draw(plot: Plot, run: RunFiles, **options) -> alt.LayerChart | None:
    """Returns the chart of `plot`, or None if the run recorded no value of it; `options` go to `lines`."""
    drawn = [s for s in series(plot, run) if any(y is not None for y in s.y)]
    named = len(drawn) > 1 or not plot.curves[0].name
    return lines(drawn, y_title=plot.y_title, percent=plot.percent, legend=named, **options) if drawn else None


def series(plot: Plot, run: RunFiles) -> list[Series]:
    """Returns the curves of `plot` with the run's values."""
    result = []
    for curve in itertools.chain.from_iterable(_expanded(curve, run) for curve in plot.curves):
        records = run.evals if curve.metric.startswith("eval/") else run.train
        if curve.metric.endswith("*"):
            result += _by_suffix(curve.metric[:-1], records)
        else:
            columns = [thin(_column(records, metric)) for metric in ("step", curve.metric)]
            if curve.interval and (len(records) <= POINTS or curve.ends):
                columns += [
                    thin(_column(records, end), of=of) for end, of in zip(curve.interval, (min, max), strict=True)
                ]
            result.append(Series(curve.name, *columns, colour=curve.colour, mark=curve.mark))
    return result


def _expanded(curve: Curve, run: RunFiles) -> list[Curve]:
    """Returns a curve for each set or benchmark if the metric names SET or BENCHMARK, and otherwise the curve itself.

    If there are too few colours, only the first sets or benchmarks have a curve.
    """
    for place, names in ((SET, sets(run)), (BENCHMARK, benchmarks(run))):
        if place in curve.metric:
            metrics = {name: curve.metric.replace(place, name) for name in names[: len(SERIES)]}
            return [dataclasses.replace(curve, name=name, metric=metric) for name, metric in metrics.items()]
    return [curve]


def sets(run: RunFiles) -> list[str]:
    """Returns the names of the sets of the run's mixture, those with the largest shares first; [] without a mixture."""
    task = run.config.get("task", {})
    found = task["args"] if task.get("name") == "mixture" else {}
    return sorted(found, key=lambda name: -found[name].get("share", 1))


def benchmarks(run: RunFiles) -> list[str]:
    """Returns the names of the benchmarks that the run was evaluated on, its own test split and its sets left out."""
    paths = (key.split("/") for record in run.evals for key in record)
    found = dict.fromkeys(path[1] for path in paths if path[0] == "eval" and len(path) == 3)
    return [name for name in found if name not in sets(run)]


def without_curves(run: RunFiles) -> list[str]:
    """Returns the names of the sets and benchmarks for which no colour is left."""
    return sets(run)[len(SERIES) :] + benchmarks(run)[len(SERIES) :]


def _by_suffix(prefix: str, records: Sequence[Record]) -> list[Series]:
    """Returns curves of the metrics that begin with `prefix` and are ever above 0: the REASONS largest, and a sum of the rest."""
    totals = Counter()
    for record in records:
        totals.update({metric: value for metric, value in record.items() if metric.startswith(prefix) and value})
    ranked = [metric for metric, _ in totals.most_common()]
    groups = {metric.removeprefix(prefix).replace("_", " "): [metric] for metric in ranked[:REASONS]}
    if len(ranked) > REASONS:
        groups["other reasons"] = ranked[REASONS:]
    step = thin(_column(records, "step"))
    return [
        Series(name, step, thin([sum(record.get(metric) or 0 for metric in metrics) for record in records]))
        for name, metrics in groups.items()
    ]


def _column(records: Sequence[Record], metric: str) -> list[float | None]:
    return [record.get(metric) for record in records]


def thin(values: Sequence[float | None], points: int = POINTS, of: Callable = statistics.fmean) -> list[float | None]:
    """Returns the means, or what `of` computes, of at most so many equal stretches, so that a long run stays a small page."""
    if len(values) <= points:
        return list(values)
    edges = [round(i * len(values) / points) for i in range(points + 1)]
    stretches = ([v for v in values[a:b] if v is not None] for a, b in itertools.pairwise(edges))
    return [of(known) if known else None for known in stretches]
