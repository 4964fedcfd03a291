"""A step laid out in time as SVG text: its phases, the host's work beside them, and how full the sampler's slots were.

A timeline is a record of `timeline.jsonl` (`runtime/clock.py` says what is in it). Lengths are in user units.
"""

import json
from collections.abc import Mapping
from html import escape

from amrsd_jax.report import theme
from amrsd_jax.report.axes import Scale, nice, number
from amrsd_jax.report.read import Record

WIDTH, LEFT, RIGHT = 1000, 60, 12
PHASE, HOST, SLOTS = 20, 8, 84  # heights of the lanes
AXIS, GAP = 24, 26  # below the last panel, between panels
COLOURS = {"rollouts": "p2", "reflections": "p4"}  # of the phases that they are made in or for


def draw(heading: str, timeline: Record) -> str:
    """One step as a chart of the page; the numbers under the pointer are those of one stretch of the timeline."""
    ticks = nice(0, timeline["seconds"], 8)
    hover = escape(json.dumps(readout(timeline, _scale(ticks)), ensure_ascii=False))
    body, height = _panels({heading: timeline}, ticks)
    words = ", ".join(_legend_texts(timeline).values())
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{heading} in time: {words}")}" data-hover="{hover}">{body}</svg>'
    )


def together(steps: Mapping[str, Record]) -> str:
    """Steps by their headings, under one another on one axis of seconds: an SVG that is a file of its own."""
    body, height = _panels(steps, nice(0, max(timeline["seconds"] for timeline in steps.values()), 8))
    style = theme.literal(theme.asset("chart.css") + ".ground { fill: var(--card); }")
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="-16 -14 {WIDTH + 32} {height + 28}" '
        f'width="{WIDTH + 32}" height="{height + 28}" role="img" aria-label="{escape(", ".join(steps))} in time">'
        f'<style>{style}</style><rect class="ground" x="-16" y="-14" width="100%" height="100%"/>{body}</svg>\n'
    )


def sampling(timeline: Record) -> dict[str, float]:
    """Mean number of slots, by what had them, over the seconds of the phase `sample`; empty without such a phase.

    Stretches that sampling touches count whole: rollouts are then counted exactly.
    """
    spans = [(begin, end) for name, begin, end in timeline["phases"] if name == "sample"]
    seconds, found = sum(end - begin for begin, end in spans), {}
    for what, busy in timeline["busy"].items() if spans else ():
        width = timeline["seconds"] / len(busy)
        touched = (any(begin < (i + 1) * width and i * width < end for begin, end in spans) for i in range(len(busy)))
        found[what] = sum(slots * width for slots, counts in zip(busy, touched, strict=True) if counts) / seconds
    return found


def readout(timeline: Record, sx: Scale) -> list:
    """[[position, heading, [[name, value], ...]], ...]: what the page shows at each stretch of the timeline."""
    stretches = max(map(len, timeline["busy"].values()), default=200)
    rows = []
    for i in range(stretches):
        now = (i + 0.5) * timeline["seconds"] / stretches
        values = [
            [lane, f"{name}, {_seconds(begin)} to {_seconds(end)}"]
            for lane, spans in (("phase", timeline["phases"]), ("host", timeline["beside"]))
            for name, begin, end in spans
            if begin <= now < end
        ]
        values += [
            [what, f"{number(busy[i], digits=3)} of {timeline['slots']}"] for what, busy in timeline["busy"].items()
        ]
        rows.append([sx(now), _seconds(now), values])
    return rows


def _scale(ticks: list[float]) -> Scale:
    return Scale(0, ticks[-1], LEFT, WIDTH - RIGHT)


def _seconds(value: float) -> str:
    return f"{number(value, digits=3)} s"


def _panels(steps: Mapping[str, Record], ticks: list[float]) -> tuple[str, float]:
    """All panels with their axis, and where that ends."""
    sx, parts, top = _scale(ticks), [], 0
    for heading, timeline in steps.items():
        panel, height = _panel(heading, timeline, sx, ticks)
        parts.append(f'<g transform="translate(0 {top})">{panel}</g>')
        top += height + GAP
    bottom = top - GAP
    names = [f'<text x="{sx(t)}" y="{bottom + 16}" text-anchor="middle">{number(t)} s</text>' for t in ticks]
    return "".join([*parts, *names, f'<line class="cross" y1="46" y2="{bottom}"/>']), bottom + AXIS


def _panel(heading: str, timeline: Record, sx: Scale, ticks: list[float]) -> tuple[str, float]:
    """One step from y = 0 on, and its height."""
    legend, phases = _legend(timeline)
    host = phases + PHASE + 4
    slots = host + HOST + 8
    bottom = slots + SLOTS
    parts = [f'<text class="name" x="0" y="11">{escape(_title(heading, timeline))}</text>', legend]
    parts += [f'<line class="grid" x1="{sx(t)}" x2="{sx(t)}" y1="{phases}" y2="{bottom}"/>' for t in ticks]
    for lane, y, height in (("phases", phases, PHASE), ("host", host, HOST), ("slots", slots, SLOTS)):
        parts.append(f'<text x="0" y="{y + height / 2 + 4}">{lane}</text>')
    parts += [_span(*span, phases, PHASE, sx) for span in timeline["phases"]]
    parts += [_span(*span, host, HOST, sx) for span in timeline["beside"]]
    return "".join([*parts, *_slots(timeline, sx, slots, bottom)]), bottom


def _slots(timeline: Record, sx: Scale, top: float, bottom: float) -> list[str]:
    """Slots that had a row: one area on the other, below the line of all slots."""
    all_slots, stretches = timeline["slots"], list(zip(*timeline["busy"].values(), strict=True))
    sy = Scale(0, max([all_slots, *map(sum, stretches)]), bottom, top)
    parts = []
    for tick, line in ((all_slots, "grid"), (0, "axis")):
        parts.append(f'<line class="{line}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{sy(tick)}" y2="{sy(tick)}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{sy(tick) + 4}" text-anchor="end">{tick}</text>')
    below = [0.0] * len(stretches)
    for what, busy in timeline["busy"].items():
        edges = [sx(i * timeline["seconds"] / len(busy)) for i in range(len(busy) + 1)]
        above = [low + more for low, more in zip(below, busy, strict=True)]
        parts.append(_area(edges, [sy(v) for v in below], [sy(v) for v in above], COLOURS.get(what, "p11")))
        below = above
    return parts


def _title(heading: str, timeline: Record) -> str:
    title, busy = f"{heading}: {_seconds(timeline['seconds'])}", sampling(timeline)
    full = number(sum(busy.values()) / timeline["slots"], percent=True, digits=3)
    return f"{title}, slots {full} full while sampling" if busy else title


def _span(name: str, begin: float, end: float, y: float, height: float, sx: Scale) -> str:
    """A bar, with its name where there is room for it."""
    x, width, colour = sx(begin), max(sx(end) - sx(begin), 0.5), theme.phase_colour(name)
    bar = f'<rect class="{colour}" x="{x}" y="{y}" width="{width:.2f}" height="{height}"/>'
    if height < PHASE or width < 12 + 7 * len(name):
        return bar
    return f'{bar}<text class="within {colour}" x="{x + 6:.2f}" y="{y + 14}">{escape(name)}</text>'


def _area(edges: list[float], below: list[float], above: list[float], colour: str) -> str:
    """What lies between two stairs; a stair is its height over each of the stretches between edges."""

    def stair(heights):
        return [(x, height) for i, height in enumerate(heights) for x in edges[i : i + 2]]

    points = " ".join(f"{x},{y}" for x, y in [*stair(above), *reversed(stair(below))])
    return f'<polygon class="{colour}" points="{points}"/>'


def _legend_texts(timeline: Record) -> dict[tuple[str, str], str]:
    """(lane, name) to what the legend says of it: seconds in all, or the mean number of slots while sampling."""
    found: dict[tuple[str, str], float] = {}
    for lane in ("phases", "beside"):
        for name, begin, end in timeline[lane]:
            found[lane, name] = found.get((lane, name), 0.0) + end - begin
    texts = {
        (lane, name): f"{name}{' on the host' if lane == 'beside' else ''} {_seconds(seconds)}"
        for (lane, name), seconds in found.items()
    }
    for what, slots in sampling(timeline).items():
        texts["slots", what] = f"{what} {number(slots, digits=3)} slots"
    return texts


def _legend(timeline: Record) -> tuple[str, float]:
    """Swatches and texts below the title, phases in a row of their own, and where they end."""
    parts, x, y, row = [], 0.0, 29, "phases"
    for (lane, name), text in _legend_texts(timeline).items():
        needed = 17 + 6.1 * len(text) + 14  # a generous guess of the text's width
        if x + needed > WIDTH or (row == "phases" != lane):
            x, y = 0.0, y + 16
        row = lane
        colour = COLOURS.get(name) or theme.phase_colour(name)
        parts.append(f'<rect class="{colour}" x="{x:.1f}" y="{y - 9}" width="10" height="10"/>')
        parts.append(f'<text x="{x + 15:.1f}" y="{y}">{escape(text)}</text>')
        x += needed
    return "".join(parts), y + 10
