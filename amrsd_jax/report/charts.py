"""Charts of the package, built with Altair: colours, a theme, the common kinds of charts, and SVG files.

A chart is drawn in the light colours of PALETTE. The rules of `css` replace each by its dark partner where the reader's system
asks for a dark scheme, on a page and in an SVG file alike, so that one drawing serves both.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import altair as alt
import vl_convert

PALETTE = {  # name: (light, dark); texts keep a contrast of 4.5 to 1 or more
    "paper": ("#fbfaf7", "#14161a"),
    "card": ("#ffffff", "#1b1e23"),
    "ink": ("#1d1f23", "#e8e6e1"),
    "muted": ("#5f636b", "#a2a7af"),
    "rule": ("#e4e1da", "#2f343b"),
    "blue": ("#1f5fa8", "#7db3ea"),
    "orange": ("#c0501b", "#f09a6c"),
    "green": ("#2a7a57", "#73c9a0"),
    "violet": ("#84479a", "#cba0da"),
    "gold": ("#8a6d0b", "#dcc160"),
    "grey": ("#6a6f78", "#a9aeb7"),
    "teal": ("#12808c", "#63cbd4"),
    "pink": ("#b8326f", "#f08cb5"),
    "lime": ("#6f8f1c", "#b7d35e"),
    "sky": ("#6ea3d8", "#3d6c9e"),
    "peach": ("#e39a72", "#9c5634"),
    "brown": ("#6b4a33", "#c2a48d"),
    "lilac": ("#b98ccb", "#7f5491"),
    "blame-fill": ("#f0916a", "#a5452a"),  # behind text: ink stays readable on the full colour
    "credit-fill": ("#74aee6", "#28649f"),
    "lighter-fill": ("#d3c07a", "#6d5f1f"),
    "heavier-fill": ("#c9a0d9", "#7b478f"),
}
SERIES = (
    "blue", "orange", "green", "violet", "gold", "grey", "teal", "pink", "lime", "sky", "peach", "brown",
)  # fmt: skip
CREDIT, BLAME = "blue", "orange"
SERIF = '"Iowan Old Style", Charter, "Palatino Linotype", Palatino, Georgia, serif'
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

FEW = 12  # a line of at most this many points shows each of them
DASH = "–"

Value = float | None  # None: not measured


@dataclasses.dataclass(frozen=True)
class Series:
    """One named sequence of values.

    Attributes:
      x, y: equally long; None in y leaves a gap in the line.
      low, high: interval around y, equally long or empty; None where there is none.
      colour: a name of PALETTE; "" takes the first of SERIES that no other series of the chart has.
      mark: "line"; "circle" or "diamond" for points that no line joins; "steps" for a histogram, where x are the centres
        of equally wide bins.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Value]
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    colour: str = ""
    mark: str = "line"

    @property
    def points(self) -> list[tuple[float, Value, Value, Value]]:
        """The (x, y, low, high) of every point; None for each end of an absent interval."""
        none = [None] * len(self.x)
        return list(zip(self.x, self.y, self.low or none, self.high or none, strict=True))


def colour(name: str) -> str:
    """Returns the light colour of that name in PALETTE; the rules of `css` replace it in a dark scheme."""
    return PALETTE[name][0]


def css() -> str:
    """Returns CSS with every colour as a variable, and a dark scheme for both the variables and the marks of charts."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in PALETTE.items()) for i in (0, 1))
    marks = "".join(f'[{a}="{pair[0]}"]{{{a}:{pair[1]}}}' for pair in PALETTE.values() for a in ("fill", "stroke"))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}{marks}}}\n"


def number(value: Value, percent: bool = False, digits: int = 4) -> str:
    """Formats a value to `digits` figures: 12.5%, 0.0312, 12,000, 3e-6; a dash for None."""
    if value is None:
        return DASH
    if percent:
        return f"{float(f'{100 * value:.{digits}g}'):g}%".replace("-", "−")
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{float(mantissa):g}e{int(power)}"
    else:
        text = f"{float(f'{value:.{digits}g}'):,.12g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−", 1) if value < 0 else text


def share(value: float) -> str:
    """Formats a share of one in per cent with one decimal, so that values in a column line up."""
    return f"{100 * value:.1f}%"


def duration(seconds: float) -> str:
    """Formats seconds as 1 h 02 min, 3 min 20 s or 12.5 s."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Returns the chart as a Vega-Lite specification with the theme of this module."""
    muted, ink, rule, card = map(colour, ("muted", "ink", "rule", "card"))
    axis = {"labelColor": muted, "titleColor": muted, "tickColor": muted, "domainColor": muted, "gridColor": rule}
    axis |= {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "ticks": False, "labelPadding": 5}
    legend = {"orient": "top", "title": None, "labelColor": ink, "labelFontSize": 11, "labelLimit": 0}
    legend |= {"symbolStrokeWidth": 2, "symbolOpacity": 1, "rowPadding": 1, "columnPadding": 18, "offset": 4}
    config = {
        "aria": False,
        "background": card,
        "font": SANS,
        "padding": 8,
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False, "titleAnchor": "end"},
        "axisY": {"domain": False},
        "legend": legend,
        "title": {"font": SERIF, "color": ink, "fontSize": 14, "fontWeight": 600, "anchor": "start", "frame": "bounds"}
        | {"subtitleFont": SANS, "subtitleColor": muted, "subtitleFontSize": 11, "offset": 6},
        "text": {"color": ink, "fontSize": 11},
        "concat": {"spacing": 26},
    }
    return chart.to_dict(validate=False) | {"config": config}  # its parts were validated when they were made


def lines(
    series: Sequence[Series],
    *,
    y_title: str = "",
    x_title: str = "step",
    percent: bool = False,
    x_percent: bool = False,
    log: bool = False,
    x_names: Sequence[str] = (),
    legend: bool | None = None,
    title: str = "",
    width: int | str = "container",
    height: int = 170,
    static: bool = False,
) -> alt.LayerChart:
    """Draws series over x with their intervals; on a page, a tooltip shows all values at the x nearest to the pointer.

    Args:
      series: drawn in this order.
      y_title: what is counted, and its unit.
      percent, x_percent: values are shares of one and are written in per cent; a y axis of shares starts at 0.
      log: makes the y axis logarithmic.
      x_names: names of x = 0, 1, 2, ... in place of numbers.
      legend: whether to name the series, by default where there is more than one.
      width: in pixels, or "container" for the width of the element that a page puts the chart into.
      static: leaves out the tooltip, for an SVG file.

    Raises:
      ValueError: no series has a value, two have the same name or colour, or there are more than there are colours.
    """
    series = [s for s in series if any(y is not None for y in s.y)]
    if not series:
        raise ValueError(f"{title or y_title}: no value to draw")
    names, colours = [s.name for s in series], _colours(series)
    key = alt.Legend(symbolType="stroke", columns=_legend_columns(names, width))
    named = len(series) > 1 if legend is None else legend
    hue = alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=key if named else None)
    rows = [row for s in series for row in _rows(s, log)]
    x = _x_channel([row["x"] for row in rows], x_title, x_percent, x_names)
    ys = [row[end] for row in rows for end in ("y", "low", "high") if row.get(end) is not None]
    y, floor = _y_channel(ys, percent, log)
    base = alt.Chart().encode(x=x, color=hue)
    points = [s.name for s in series if s.mark in ("circle", "diamond")]
    layers = []
    for s in series:
        of = base.transform_filter(alt.FieldEqualPredicate(field="series", equal=s.name))
        interval = dict(y=_field(y, "low"), y2="high:Q")
        known = any(low is not None for low in s.low)
        if s.mark == "steps":
            area = of.mark_area(interpolate="step", line={"strokeWidth": 1.75}, fillOpacity=0.16, clip=True)
            layers.append(area.encode(y=y, y2=alt.datum(floor)))
        elif s.mark == "line":
            layers += [of.mark_area(opacity=0.16).encode(**interval)] if known else []
            layers.append(of.mark_line(strokeWidth=1.75, strokeJoin="round").encode(y=y))
            layers.append(of.transform_filter("datum.dot").mark_circle(size=26, opacity=1).encode(y=y))
        else:
            aside = 6 * (points.index(s.name) - (len(points) - 1) / 2)  # whiskers at one x stand beside each other
            layers += [of.mark_rule(xOffset=aside, strokeWidth=1.25).encode(**interval)] if known else []
            layers.append(of.mark_point(shape=s.mark, filled=True, opacity=1, size=48, xOffset=aside).encode(y=y))
    if not static:
        layers.append(hover(_stops(series, percent, x_percent, x_names), names, x, x_title))
    small = {"font": SANS, "color": colour("muted"), "fontSize": 11, "fontWeight": "normal"}
    heading = alt.TitleParams(title, subtitle=y_title) if title else alt.TitleParams(y_title, **small)
    options = {"title": heading} if title or y_title else {}
    chart = alt.layer(*layers, data=alt.InlineData(values=rows), width=width, height=height, **options)
    return chart.properties(description=summary(series, percent))


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[Value]],
    *,
    centre: float = 0.0,
    reach: float = 1.0,
    cell: int = 44,
) -> alt.LayerChart:
    """Draws a matrix as cells: blue above `centre`, orange below, full colours `reach` away from it; None is left blank.

    Args:
      values: one sequence per row.
      cell: width of a cell in pixels; its height is 0.6 of that.
    """
    data = [
        {"row": row, "column": column, "sign": "below" if v < centre else "above"}
        | {"depth": min(1, abs(v - centre) / reach), "text": f"{round(v, 2) + 0.0:.2f}".replace("-", "−")}  # no −0.00
        for row, of_row in zip(rows, values, strict=True)
        for column, v in zip(columns, of_row, strict=True)
        if v is not None
    ]
    x_axis = alt.Axis(orient="top", labelAngle=-40, domain=False, labelLimit=0)
    x = alt.X("column:N", sort=None, title=None, scale=alt.Scale(domain=list(columns)), axis=x_axis)
    y = alt.Y("row:N", sort=None, title=None, scale=alt.Scale(domain=list(rows)), axis=alt.Axis(labelLimit=0))
    tooltip = [alt.Tooltip("row:N", title=""), alt.Tooltip("column:N", title=""), alt.Tooltip("text:N", title="value")]
    base = alt.Chart(alt.InlineData(values=data)).encode(x=x, y=y, tooltip=tooltip)
    fill = alt.Scale(domain=["below", "above"], range=[colour("blame-fill"), colour("credit-fill")])
    opacity = alt.Scale(domain=[0, 1], range=[0, 1])
    cells = base.mark_rect().encode(
        fill=alt.Fill("sign:N", scale=fill, legend=None),
        fillOpacity=alt.FillOpacity("depth:Q", scale=opacity, legend=None),
    )
    size = {"width": cell * len(columns), "height": round(0.6 * cell) * len(rows)}
    return alt.layer(cells, base.mark_text().encode(text="text:N"), **size)


def bars(values: Mapping[str, float], texts: Sequence[str], *, x_title: str = "") -> alt.LayerChart:
    """Draws a horizontal bar per name, with a text at its end."""
    rows = [
        {"name": name, "value": value, "text": text} for (name, value), text in zip(values.items(), texts, strict=True)
    ]
    base = alt.Chart(alt.InlineData(values=rows))
    # Leave room for the text beside the longest bar.
    scale = alt.Scale(domain=[0, 1.4 * max(values.values())], nice=False)
    axis = alt.Axis(title=x_title or None, tickCount=5, grid=True, labelExpr=_NUMBER)
    base = base.encode(y=alt.Y("name:N", sort=None, title=None), x=alt.X("value:Q", axis=axis, scale=scale))
    drawn = (
        base.mark_bar(height={"band": 0.6}, color=colour(CREDIT)),
        base.mark_text(align="left", dx=6).encode(text="text:N"),
    )
    return alt.layer(*drawn, width="container", height=22 * len(rows))


def svg(chart: alt.TopLevelMixin) -> str:
    """Returns the chart as SVG text with both schemes; equal charts give equal texts."""
    text = vl_convert.vegalite_to_svg(spec(chart))
    # Vega numbers the clip paths of all charts of a process: number those of this chart from 0.
    order = {name: f"clip{i}" for i, name in enumerate(dict.fromkeys(re.findall(r"\bclip\d+\b", text)))}
    text = re.sub(r"\bclip\d+\b", lambda name: order[name[0]], text)
    head, body = text.split(">", 1)
    return f"{head}><style>{escape(css(), quote=False)}</style>{body}\n"


def summary(series: Sequence[Series], percent: bool = False) -> str:
    """Returns the first and last value of each series in words, for readers who do not see the chart."""
    ends = [(s.name, [y for y in s.y if y is not None]) for s in series]
    return "; ".join(f"{name} from {number(y[0], percent)} to {number(y[-1], percent)}" for name, y in ends if y)


# Axis labels as `number` writes them: 3e-6 and 12,000, and a sign that is as wide as a digit.
_NUMBER = (
    "replace(datum.value != 0 && (abs(datum.value) < 0.001 || abs(datum.value) >= 1e6) ? format(datum.value, '.3~e')"
    " : format(datum.value, ',.4~f'), '-', '−')"
)
_PERCENT = "format(100 * datum.value, '.3~g') + '%'"


def _x_channel(xs: Sequence[float], title: str, percent: bool, names: Sequence[str]) -> alt.X:
    axis = {"title": title, "tickCount": 5, "labelOverlap": True, "labelExpr": _PERCENT if percent else _NUMBER}
    low, high = min(xs), max(xs)
    if names:
        labels = "[" + ",".join(f"'{name}'" for name in names) + "][datum.value]"
        axis |= {"values": list(range(len(names))), "labelExpr": labels}
        low, high = -0.6, len(names) - 0.4
    elif not percent and high - low <= 5 and all(float(x).is_integer() for x in xs):
        axis["values"] = list(range(int(low), int(high) + 1))  # no ticks between whole steps
    scale = alt.Scale(domain=[low, high if high > low else low + 1], nice=False, padding=8)
    return alt.X("x:Q", axis=alt.Axis(**axis), scale=scale)


def _y_channel(ys: Sequence[float], percent: bool, log: bool) -> tuple[alt.Y, float]:
    """Returns the channel and the y at which histograms begin; shares start at 0, a logarithmic axis at a power of ten."""
    axis = {"title": None, "tickCount": 4, "labelExpr": _PERCENT if percent else _NUMBER}
    if log:
        low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        scale = alt.Scale(type="log", domain=[10.0**low, 10.0**high])
        axis["values"] = [10.0**power for power in range(low, high + 1)]
    elif not any(ys):
        scale = alt.Scale(domain=[0, 0.01 if percent else 1])
    else:
        scale = alt.Scale(zero=percent or 0 < min(ys) < 0.5 * max(ys), nice=True)
    return alt.Y("y:Q", axis=alt.Axis(**axis), scale=scale), 10.0**low if log else 0.0


def _field(channel: alt.X | alt.Y, name: str) -> alt.X | alt.Y:
    """Returns the channel for another field."""
    other = channel.copy()
    other["shorthand"] = f"{name}:Q"
    return other


def _colours(series: Sequence[Series]) -> list[str]:
    taken = [s.colour for s in series if s.colour]
    free = iter(name for name in SERIES if name not in taken)
    names = [s.colour or next(free, "") for s in series]
    if len(set(names)) < len(names) or "" in names or len({s.name for s in series}) < len(names):
        raise ValueError(f"expected up to {len(SERIES)} series with different names and colours, found {names}")
    return [colour(name) for name in names]


def _legend_columns(names: Sequence[str], width: int | str) -> int:
    """Returns how many legend entries fit beside each other; 300 pixels are the narrowest chart of a page."""
    widest = 36 + 6.2 * max(map(len, names))
    return max(1, min(len(names), int((width if isinstance(width, int) else 300) / widest)))


def _rows(s: Series, log: bool) -> list[dict[str, Any]]:
    """Returns the points of a series as rows; `dot` marks points that need a mark because a line would not show them."""
    points = s.points
    few = sum(y is not None for y in s.y) <= FEW
    rows = []
    for i, (x, y, low, high) in enumerate(points):
        alone = all(points[j][1] is None for j in (i - 1, i + 1) if 0 <= j < len(points))
        if log and y is not None and y <= 0:
            y = None  # a logarithmic axis has no zero
        row = {"series": s.name, "x": x, "y": y}
        if s.low:
            row["low"], row["high"] = (None, None) if None in (y, low, high) else (low, high)
        rows.append(row | ({"dot": True} if s.mark == "line" and y is not None and (few or alone) else {}))
    if s.mark == "steps" and len(s.x) > 1:  # the outline goes to the outer edges of the bins
        half = (s.x[1] - s.x[0]) / 2
        rows = [rows[0] | {"x": s.x[0] - half}, *rows, rows[-1] | {"x": s.x[-1] + half}]
    return rows


def hover(
    stops: Mapping[float, tuple[str, Mapping[str, str]]], names: Sequence[str], x: alt.X, x_title: str
) -> alt.LayerChart:
    """Draws a vertical line at the x nearest to the pointer, with a tooltip of named texts.

    Args:
      stops: for each x, the tooltip's first line and its texts by name.
      names: in the order of the tooltip; a name without a text at some x has a dash there.
      x: as the other layers encode it.
    """
    xs = sorted(stops)
    reach = 1 + xs[-1] - xs[0]  # the outer strips go beyond the axis, where they are clipped
    edges = [xs[0] - reach, *((a + b) / 2 for a, b in itertools.pairwise(xs)), xs[-1] + reach]
    rows = [
        {"x": at, "from": edges[i], "to": edges[i + 1], "head": stops[at][0]}
        | {f"v{j}": stops[at][1].get(name, DASH) for j, name in enumerate(names)}
        for i, at in enumerate(xs)
    ]
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", fields=["x"], empty=False)
    tooltip = [alt.Tooltip("head:N", title=x_title or " ")]
    tooltip += [alt.Tooltip(f"v{i}:N", title=name) for i, name in enumerate(names)]
    base = alt.Chart(alt.InlineData(values=rows))
    rule = base.mark_rule(color=colour("muted"), strokeDash=[2, 3], strokeWidth=1)
    # Invisible strips receive the pointer, because Vega-Lite's `nearest` shows no tooltip of several fields.
    strips = base.mark_rect(fillOpacity=0, clip=True).encode(x=_field(x, "from"), x2="to:Q", tooltip=tooltip)
    opacity = alt.condition(near, alt.value(1), alt.value(0))
    return alt.layer(rule.encode(x=x, opacity=opacity), strips.add_params(near))


def _stops(series: Sequence[Series], percent: bool, x_percent: bool, x_names: Sequence[str]) -> dict:
    """Returns the `stops` of `hover` for series."""
    stops: dict[float, tuple[str, dict[str, str]]] = {}
    for s in series:
        for at, y, low, high in s.points:
            if y is not None:
                head = x_names[int(at)] if x_names else number(at, x_percent, 6)
                known = all(end is not None and math.isfinite(end) for end in (low, high))
                interval = f" ({number(low, percent)} to {number(high, percent)})" if known else ""
                stops.setdefault(at, (head, {}))[1][s.name] = number(y, percent) + interval
    return stops
