"""Makes the page of several runs: their curves over each other, their final values, and the fields in which they differ."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import altair as alt

from amrsd_jax.report import charts, document
from amrsd_jax.report.curves import Curve, Plot, thin
from amrsd_jax.report.groups import AFTER, LAST, OUTCOME, Group, group, read_runs, table
from amrsd_jax.report.read import Record, RunFiles

POINTS = 200  # of a curve; as on the page of one run, a longer one is drawn as means of stretches of steps


PLOTS = (
    Plot("Held-out accuracy, sampled", "share of answers that are correct", (Curve("", "eval/sampled"),), percent=True),
    Plot("Held-out accuracy, greedy", "share of answers that are correct", (Curve("", "eval/greedy"),), percent=True),
    Plot("Accuracy of rollouts", "share of rollouts that are correct", (Curve("", "reward/accuracy"),), percent=True),
    Plot("Reward", "mean over rollouts", (Curve("", "reward/mean"),)),
    Plot("Response length", "tokens, mean over rollouts", (Curve("", "response_length/mean"),)),
    Plot("Entropy", "nats per token", (Curve("", "policy/entropy"),)),
    Plot("KL of old to new policy", "nats per token", (Curve("", "policy/kl_old_new"),)),
    Plot("KL to the reference policy", "nats per token", (Curve("", "policy/kl_to_reference"),)),
    Plot("Gradient norm", "before clipping", (Curve("", "grad_norm"),)),
)


def render(workdirs: Sequence[Path | str]) -> str:
    """Returns the page of several runs as HTML.

    Raises:
      ValueError: none of the folders holds a run with a step.
    """
    runs, notes = read_runs(workdirs)
    groups = group(runs)
    drawn = most_accurate(groups, len(charts.SERIES))
    colours = dict(zip((one.name for one in drawn), charts.SERIES, strict=False))
    if len(drawn) < len(groups):
        notes.append(
            f"Curves show the {len(drawn)} of {len(groups)} combinations with the highest accuracy after training."
        )
    head, rows = table(groups, OUTCOME + LAST)
    return document.render(
        "overlay",
        __package__,
        rules=_values(groups, "credit", "rule"),
        tasks=_values(groups, "task", "name"),
        count=len(runs),
        notes=notes,
        groups=groups,
        colours=colours,
        charts=[(plot.title, draw(plot, drawn, colours)) for plot in PLOTS],
        bands=any(len(one.runs) > 1 for one in drawn),
        head=head,
        rows=rows,
    )


def most_accurate(groups: Sequence[Group], most: int) -> list[Group]:
    """Returns at most so many groups, those with the highest mean accuracy after training, in their order."""

    def accuracy(one: Group) -> float:
        values = [AFTER.value(run) or 0.0 for run in one.runs]
        return sum(values) / len(values)

    chosen = sorted(range(len(groups)), key=lambda i: -accuracy(groups[i]))[:most]
    return [groups[i] for i in sorted(chosen)]


def draw(plot: Plot, groups: Sequence[Group], colours: dict[str, str]) -> alt.LayerChart | None:
    """Returns a line per group, the mean over its runs, with a band from the lowest to the highest; None without a value.

    A line has the steps that all runs of its group with the metric have.
    """
    metric, series = plot.curves[0].metric, []
    for one in groups:
        by_step = defaultdict(list)
        for run in one.runs:
            for record in _records(run, metric):
                if record.get(metric) is not None:
                    by_step[record["step"]].append(record[metric])
        # A step that only some runs have would make the mean jump, so it is left out.
        measured = sum(any(record.get(metric) is not None for record in _records(run, metric)) for run in one.runs)
        steps = sorted(step for step, few in by_step.items() if len(few) == measured)
        values = [by_step[step] for step in steps]
        columns = [steps, [sum(few) / len(few) for few in values]]
        columns += [[end(few) for few in values] for end in (min, max) if len(one.runs) > 1]
        series.append(charts.Series(one.name, *(thin(column, POINTS) for column in columns), colour=colours[one.name]))
    series = [one for one in series if one.x]
    return charts.lines(series, y_title=plot.y_title, percent=plot.percent, legend=False) if series else None


def _records(run: RunFiles, metric: str) -> list[Record]:
    return run.evals if metric.startswith("eval/") else run.train


def _values(groups: Sequence[Group], section: str, field: str) -> list[str]:
    return list(dict.fromkeys(str(one.runs[0].config.get(section, {}).get(field, "")) for one in groups))
