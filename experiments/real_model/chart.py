"""Draws the figure of the study: the contrasts that were named before the runs, above the curves of the arms in them."""

import altair as alt

from amrsd_jax.evaluate.estimators import t_interval
from amrsd_jax.report import charts
from experiments.common import Row, group_by
from experiments.curves import areas, series
from experiments.real_model.arms import LR, PARTS
from experiments.real_model.tables import DECISIVE, differences, distinct, of_part, with_pairs

DRAWN = (
    "grpo", "drop_failures", "amrsd", "prefix_credit", "prefix_credit_reference", "quoted_blame", "shuffled_blame",
)  # fmt: skip
WIDTH = 360  # of a panel, in pixels


def figure(rows: list[Row]) -> str:
    """Draws the contrasts at the learning rate LR, and below them the accuracy of the arms in DRAWN against rollouts.

    The curves are those of the first of PARTS that has rows. Bands are bootstrap 95 % intervals over seeds, as in the other
    studies' figures.
    """
    rows = [row for row in with_pairs(rows) if row["lr"] == LR]
    panels, first = [], next((part for part in PARTS if any(row["part"] == part for row in rows)), "more")
    for (rung,), group in sorted(group_by([row for row in rows if row["part"] == first], "rung").items()):
        by_arm = group_by(distinct(group), "arm")
        drawn = [series(by_arm[arm,]) for arm in DRAWN if (arm,) in by_arm]
        if drawn:
            options = dict(y_title="sampled accuracy", x_title="rollouts", percent=True, width=WIDTH, height=220)
            panels.append(charts.lines(drawn, title=f"SmolLM2-135M, {rung} ({first})", static=True, **options))
    parts = [*forest(rows), *([alt.hconcat(*panels)] if panels else [])]
    if not parts:
        raise ValueError(f"no row of {', '.join(DRAWN)} and no pair with learning rate {LR:g}: nothing to draw")
    return charts.svg(alt.vconcat(*parts).resolve_scale(color="independent"))


def forest(rows: list[Row]) -> list[alt.LayerChart]:
    """Draws a dot for each pair of a contrast, and their mean with its 95 % interval. Returns [] if no contrast has two pairs."""
    points, means = [], []
    for part, named in DECISIVE.items():
        by_arm, _ = areas(of_part(rows, part), "pair")
        for name, by_pair in differences(by_arm, named).items():
            mean, low, high = t_interval(list(by_pair.values()))
            means.append({"contrast": name, "x": mean, "low": low, "high": high})
            points += [
                {"contrast": name, "x": value, "rung": pair.partition(",")[0]} for (pair, _), value in by_pair.items()
            ]
    if not means:
        return []
    names = [mean["contrast"] for mean in means]
    title = "difference of the mean accuracy over training"
    axis = alt.Axis(title=title, grid=True, format="+.2f", tickCount=8, labelFlush=False, labelOverlap="greedy")
    x = alt.X("x:Q", axis=axis, scale=alt.Scale(zero=True, nice=True))
    # The labels are measured in one font. A viewer may show them in a wider one, which would cut them.
    labels = alt.Axis(labelLimit=0, minExtent=7 * max(map(len, names)))
    y = alt.Y("contrast:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=labels)
    rungs = sorted({point["rung"] for point in points})
    colours = [charts.colour(name) for name in charts.SERIES[: len(rungs)]]
    hue = alt.Color(
        "rung:N",
        scale=alt.Scale(domain=rungs, range=colours),
        legend=alt.Legend(symbolType="circle", symbolStrokeWidth=0),
    )
    muted, ink = charts.colour("muted"), charts.colour("ink")
    zero = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=muted, strokeWidth=1).encode(x=alt.datum(0))
    pairs = alt.Chart(alt.InlineData(values=points)).mark_circle(size=26, opacity=0.6, yOffset=-4)
    whole = alt.Chart(alt.InlineData(values=means)).encode(y=y)
    layers = (
        zero,
        pairs.encode(x=x, y=y, color=hue),
        whole.mark_rule(color=ink, strokeWidth=1.5, yOffset=4).encode(x=alt.X("low:Q"), x2="high:Q"),
        whole.mark_point(color=ink, shape="diamond", filled=True, opacity=1, size=48, yOffset=4).encode(x=x),
    )
    title = alt.TitleParams(
        "Contrasts named before their runs", subtitle="a dot per pair of runs; mean and 95 % interval"
    )
    return [alt.layer(*layers, width=2 * WIDTH - 200, height=30 * len(names), title=title)]
