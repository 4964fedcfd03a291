"""Charts as SVG text: lines, interval bands and points over two axes. Colours are classes of chart.css.

Lengths are in user units; the page shows a chart at about one CSS pixel each, so that text keeps its size.
"""

import dataclasses
import json
from collections.abc import Sequence
from html import escape

from amrsd_jax.report.axes import Scale, Value, number, x_axis, y_axis

WIDTH, HEIGHT = 380, 240
LEFT, RIGHT, BOTTOM = 46, 12, 36
INSET = 8  # room for the marks of the first and the last step
FEW = 12  # a line of at most so many points shows each of them


@dataclasses.dataclass(frozen=True)
class Series:
    """One named run of values.

    Attributes:
      x, y: equally long; None in y leaves a gap in the line.
      low, high: interval around y, equally long or empty; None where there is none.
      colour: class name of chart.css, "s1" to "s6", "blame" or "credit".
      mark: "line"; "circle" or "diamond" for points that no line should join; "steps" for a histogram, where
        x are the centres of equally wide bins and 0 is drawn on the baseline.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Value]
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    colour: str = "s1"
    mark: str = "line"

    def points(self) -> list[tuple[float, Value, Value, Value]]:
        """(x, y, low, high) of every point."""
        none = [None] * len(self.x)
        return list(zip(self.x, self.y, self.low or none, self.high or none, strict=True))

    def extent(self) -> list[float]:
        """The x values that the axis must hold."""
        if self.mark != "steps":
            return list(self.x)
        half = (self.x[1] - self.x[0]) / 2
        return [self.x[0] - half, *self.x, self.x[-1] + half]


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    percent: bool = False,
    log: bool = False,
    x_percent: bool = False,
    x_names: Sequence[str] = (),
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> str:
    """Returns one `<svg>`; ValueError if no series has a value (the caller says why in words).

    Args:
      series: drawn in this order; more than one is named in a legend.
      title: read out in place of the picture, not drawn.
      y_label: what is counted and its unit, above the axis.
      percent, x_percent: the values are shares of one, and are written in per cent.
      log: logarithmic y axis in whole powers of ten.
      x_names: names of x = 0, 1, 2, ... in place of numbers.
    """
    series = [s for s in series if any(y is not None for y in s.y)]
    if not series:
        raise ValueError(f"{title}: no value to draw")
    width, height = size
    legend, legend_rows = _legend(series, width) if len(series) > 1 else ("", 0)
    top, bottom = 26 + 16 * legend_rows, height - BOTTOM
    x_ticks = list(range(len(x_names))) or x_axis([x for s in series for x in s.extent()], x_percent)
    y_ticks = y_axis([v for s in series for point in s.points() for v in point[1:] if v is not None], percent, log)
    pad = 0.6 if x_names else 0
    sx = Scale(x_ticks[0] - pad, x_ticks[-1] + pad, LEFT + INSET, width - RIGHT - INSET)
    sy = Scale(y_ticks[0], y_ticks[-1], bottom, top, log)

    parts = [f'<text x="0" y="11">{escape(y_label)}</text>', legend]
    for tick in y_ticks:
        y = sy(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick, percent)}</text>')
    for tick in x_ticks:
        name = escape(x_names[tick]) if x_names else number(tick, x_percent, 6)
        parts.append(f'<text x="{sx(tick)}" y="{bottom + 16}" text-anchor="middle">{name}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text x="{width - RIGHT}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>'
        f'<line class="cross" y1="{top}" y2="{bottom}"/>'
    )
    parts += [_band(s, sx, sy) for s in series] + [
        _marks(s, sx, sy, aside) for s, aside in zip(series, _asides(series), strict=True)
    ]
    hover = escape(json.dumps(readout(series, sx, percent, x_percent, x_label, x_names), ensure_ascii=False))
    label = escape(f"{title}: {summary(series, percent)}")
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}" data-hover="{hover}">{"".join(parts)}</svg>'
    )


def summary(series: Sequence[Series], percent: bool) -> str:
    """First and last value of each series, in words."""
    parts = []
    for s in series:
        values = [y for y in s.y if y is not None]
        parts.append(f"{s.name} from {number(values[0], percent)} to {number(values[-1], percent)}")
    return "; ".join(parts)


def readout(series, sx: Scale, percent: bool, x_percent: bool, x_label: str, x_names: Sequence[str]) -> list:
    """[[position, heading, [[name, value], ...]], ...] of each x: what the page shows under the pointer."""
    rows: dict[float, list] = {}
    for s in series:
        for x, y, low, high in s.points():
            interval = f" ({number(low, percent)} to {number(high, percent)})" if low is not None else ""
            if y is not None:
                rows.setdefault(x, []).append([s.name, number(y, percent) + interval])
    heading = {x: x_names[x] if x_names else f"{x_label} {number(x, x_percent, 6)}" for x in rows}
    return [[sx(x), heading[x], rows[x]] for x in sorted(rows)]


def _band(s: Series, sx: Scale, sy: Scale) -> str:
    if s.mark != "line":  # points carry whiskers instead
        return ""
    shapes = []
    for run in _runs([p for p in s.points() if p[1] is not None], lambda p: p[2] is not None):
        upper = [f"{sx(x)},{sy(high)}" for x, _, _, high in run]
        lower = [f"{sx(x)},{sy(low)}" for x, _, low, _ in reversed(run)]
        shapes.append(
            f'<polygon class="band {s.colour}" points="{" ".join(upper + lower)}"/>'
            if len(run) > 1
            else _whisker(run[0], s.colour, sx, sy)
        )
    return "".join(shapes)


def _marks(s: Series, sx: Scale, sy: Scale, aside: float) -> str:
    shown = [p for p in s.points() if p[1] is not None]
    parts = []
    if s.mark == "steps":
        edges, half = s.extent(), (s.x[1] - s.x[0]) / 2
        tops = [f"{sx(x + side)},{sy(y)}" for x, y, _, _ in shown for side in (-half, half)]
        ends = [f"{sx(edges[i])},{sy(sy.low)}" for i in (0, -1)]
        path = " ".join([ends[0], *tops, ends[1]])
        parts = [f'<polygon class="band {s.colour}" points="{path}"/>']
        parts.append(f'<polyline class="line {s.colour}" points="{path}"/>')
    elif s.mark == "line":
        for run in _runs(s.points(), lambda p: p[1] is not None):
            if len(run) > 1:
                path = " ".join(f"{sx(x)},{sy(y)}" for x, y, _, _ in run)
                parts.append(f'<polyline class="line {s.colour}" points="{path}"/>')
            if len(run) == 1 or len(shown) <= FEW:
                parts += [_mark("circle", sx(x), sy(y), s.colour) for x, y, _, _ in run]
    else:
        parts += [_whisker(p, s.colour, sx, sy, aside) for p in shown if p[2] is not None]
        parts += [_mark(s.mark, sx(x) + aside, sy(y), s.colour) for x, y, _, _ in shown]
    return "".join(parts)


def _asides(series: Sequence[Series]) -> list[float]:
    """How far to the side each series is drawn, so that the whiskers of one step stand beside each other."""
    points = [s for s in series if s.mark in ("circle", "diamond")]
    return [6 * (points.index(s) - (len(points) - 1) / 2) if s in points else 0 for s in series]


def _runs(points: Sequence, keep) -> list[list]:
    """Cuts a sequence into its unbroken runs of kept points."""
    runs: list[list] = [[]]
    for point in points:
        if keep(point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _whisker(point: tuple, colour: str, sx: Scale, sy: Scale, aside: float = 0) -> str:
    x, low, high = sx(point[0]) + aside, sy(point[2]), sy(point[3])
    return f'<line class="whisker {colour}" x1="{x:.2f}" x2="{x:.2f}" y1="{low}" y2="{high}"/>'


def _mark(mark: str, x: float, y: float, colour: str) -> str:
    if mark == "diamond":
        return f'<path class="mark {colour}" d="M{x:.2f} {y - 5:.2f}l5 5l-5 5l-5 -5z"/>'
    return f'<circle class="mark {colour}" cx="{x:.2f}" cy="{y}" r="{4 if mark == "circle" else 3}"/>'


def _legend(series: Sequence[Series], width: float) -> tuple[str, int]:
    """Swatches and names in rows above the plot, and the number of rows."""
    parts, x, row = [], 0.0, 0
    for s in series:
        needed = 22 + 6.1 * len(s.name) + 14  # a generous guess of the text's width
        if x and x + needed > width:
            x, row = 0.0, row + 1
        y = 27 + 16 * row
        swatch = (
            f'<line class="line {s.colour}" x1="{x}" x2="{x + 14}" y1="{y - 4}" y2="{y - 4}"/>'
            if s.mark in ("line", "steps")
            else _mark(s.mark, x + 7, y - 4, s.colour)
        )
        parts.append(f'{swatch}<text class="name" x="{x + 19:.1f}" y="{y}">{escape(s.name)}</text>')
        x += needed
    return "".join(parts), row + 1
