"""Draws a step in time: its phases, work on the host at the same time, and how many slots of the sampler were busy.

A timeline is a line of timeline.jsonl; `runtime/clock.py` documents its fields.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import altair as alt

from amrsd_jax.report.charts import colour, hover, number
from amrsd_jax.report.read import Record

PHASES = {
    "warmup": "lime", "sample": "blue", "reflect": "violet", "score": "green", "null_control": "peach",
    "credit": "gold", "update": "orange", "evaluate": "teal", "report": "grey", "checkpoint": "brown",
}  # fmt: skip
HOST = {"verify": "pink", "reflect": "muted"}
BUSY = {"rollouts": "sky", "reflections": "lilac"}
COLOURS, OTHER = {"phase": PHASES, "host": HOST, "busy": BUSY}, "muted"
HEIGHT = 150


def draw(
    heading: str, timeline: Record, *, seconds: float | None = None, width: int | str = "container"
) -> alt.LayerChart:
    """Draws one step; on a page, a tooltip shows the phase and the busy slots at the pointer.

    Args:
      heading: stands before the step's seconds in the title.
      seconds: the end of the x axis, by default that of the step.
    """
    slots, total = timeline["slots"], timeline["seconds"]
    top = max([slots, *map(sum, zip(*timeline["busy"].values(), strict=True))])
    lanes = {"host": (1.12 * top, 1.2 * top), "phase": (1.28 * top, 1.5 * top)}
    names = _legend(timeline)
    x_axis = alt.Axis(title=None, labelExpr="datum.label + ' s'", tickCount=8, grid=True)
    x = alt.X("x:Q", axis=x_axis, scale=alt.Scale(domain=[0, seconds or total], nice=False))
    middles = [sum(lanes[lane]) / 2 for lane in ("host", "phase")]
    labels = f"datum.value == {middles[0]} ? 'host' : datum.value == {middles[1]} ? 'phases' : datum.label"
    y_axis = alt.Axis(title=None, values=[0, slots, *middles], labelExpr=labels, grid=False)
    y = alt.Y("low:Q", axis=y_axis, scale=alt.Scale(domain=[0, 1.5 * top], nice=False))
    scale = alt.Scale(
        domain=list(names.values()), range=[colour(COLOURS[lane].get(name, OTHER)) for lane, name in names]
    )
    legend = alt.Legend(symbolType="square", columns=2 if width == "container" else 5)
    hue = alt.Color("name:N", scale=scale, legend=legend)

    spans = [
        {
            "name": names[lane, name],
            "phase": name,
            "x": begin,
            "end": end,
            "low": lanes[lane][0],
            "high": lanes[lane][1],
        }
        | {"middle": sum(lanes[lane]) / 2, "wide": lane == "phase" and end - begin > 0.1 * (seconds or total)}
        for lane, name, begin, end in _spans(timeline)
    ]
    bars = alt.Chart(alt.InlineData(values=spans))
    inside = bars.transform_filter("datum.wide").mark_text(align="left", dx=5, color=colour("card"))
    layers = [
        alt.Chart(alt.InlineData(values=_areas(timeline, names)))
        .mark_area(interpolate="step-after")
        .encode(x=x, y=y, y2="high:Q", color=hue, detail="name:N"),
        bars.mark_rect().encode(x=x, x2="end:Q", y=y, y2="high:Q", color=hue),
        inside.encode(x=x, y=alt.Y("middle:Q", axis=y_axis), text="phase:N"),
        alt.Chart(alt.InlineData(values=[{"low": slots}])).mark_rule(color=colour("rule")).encode(y=y),
    ]
    if width == "container":
        layers.append(hover(_stops(timeline), ["phase", "host", *timeline["busy"]], x, "time"))
    busy = utilisation(timeline)
    subtitle = (
        "" if busy is None else f"{number(busy, percent=True, digits=3)} of the slots busy while anything was sampled"
    )
    title = alt.TitleParams(f"{heading}: {_seconds(total)}", subtitle=subtitle)
    return alt.layer(*layers, title=title, width=width, height=HEIGHT)


def together(steps: Mapping[str, Record], width: int = 900) -> alt.VConcatChart:
    """Draws steps, given by their headings, under one another on one axis of seconds."""
    seconds = max(timeline["seconds"] for timeline in steps.values())
    panels = (draw(heading, timeline, seconds=seconds, width=width) for heading, timeline in steps.items())
    return alt.vconcat(*panels).resolve_scale(color="independent")


def utilisation(timeline: Record) -> float | None:
    """Returns the mean share of busy slots from the first stretch with a busy slot to the last; None if no slot was busy."""
    totals = [sum(counts) for counts in zip(*timeline["busy"].values(), strict=True)]
    active = [i for i, busy in enumerate(totals) if busy]
    if not active:
        return None
    return sum(totals) / (active[-1] - active[0] + 1) / timeline["slots"]


def _areas(timeline: Record, names: Mapping[tuple[str, str], str]) -> list[Record]:
    """Returns the stacked areas of busy slots as rows: one at the beginning of each stretch, and one at the end."""
    rows: list[Record] = []
    below = [0.0] * len(next(iter(timeline["busy"].values()), ()))
    for name, busy in timeline["busy"].items():
        above = [low + more for low, more in zip(below, busy, strict=True)]
        for i in range(len(busy) + 1):
            j = min(i, len(busy) - 1)
            x = round(i * timeline["seconds"] / len(busy), 4)
            rows.append({"name": names["busy", name], "x": x, "low": below[j], "high": round(above[j], 2)})
        below = above
    return rows


def _stops(timeline: Record) -> dict[float, tuple[str, dict[str, str]]]:
    """Returns the `stops` of `hover`: one in the middle of each stretch."""
    stretches = max(map(len, timeline["busy"].values()), default=200)
    stops = {}
    for i in range(stretches):
        now = (i + 0.5) * timeline["seconds"] / stretches
        texts = {
            lane: f"{name}, {_seconds(begin)} to {_seconds(end)}"
            for lane, name, begin, end in _spans(timeline)
            if begin <= now < end
        }
        texts |= {
            name: f"{number(busy[i], digits=3)} of {timeline['slots']} slots" for name, busy in timeline["busy"].items()
        }
        stops[round(now, 5)] = _seconds(now), texts
    return stops


def _legend(timeline: Record) -> dict[tuple[str, str], str]:
    """Returns the texts of the legend by (lane, name): the seconds of each phase, and the most slots that were busy at once."""
    totals = Counter()
    for lane, name, begin, end in _spans(timeline):
        totals[lane, name] += end - begin
    texts = {
        (lane, name): f"{name}{' on the host' if lane == 'host' else ''} {_seconds(seconds)}"
        for (lane, name), seconds in totals.items()
    }
    most = {name: number(max(busy, default=0), digits=3) for name, busy in timeline["busy"].items()}
    return texts | {("busy", name): f"{name} in up to {slots} slots" for name, slots in most.items()}


def _spans(timeline: Record) -> Iterator[tuple[str, str, float, float]]:
    """Yields (lane, name, begin, end) of the phases, and of the work on the host beside them."""
    for lane, key in (("phase", "phases"), ("host", "beside")):
        for name, begin, end in timeline[key]:
            yield lane, name, begin, end


def _seconds(value: float) -> str:
    return f"{number(value, digits=3)} s"
