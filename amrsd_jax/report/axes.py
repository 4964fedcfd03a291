"""Axes: how values become lengths, which ticks an axis has, and how a number is written."""

import dataclasses
import math
from collections.abc import Sequence

Value = float | None  # None: not measured


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to lengths in [start, end], on a logarithmic axis if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            value = max(value, self.low)  # a logarithmic axis has no zero: it ends on the baseline
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)


def number(value: Value, percent: bool = False, digits: int = 4) -> str:
    """A value to `digits` figures as a person writes it: 12.5%, 0.0312, 12,000, 3e-6; an en dash for None."""
    if value is None:
        return "–"
    if percent:
        return f"{float(f'{100 * value:.{digits}g}'):g}%"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{float(mantissa):g}e{int(power)}"
    else:
        text = f"{float(f'{value:.{digits}g}'):,.12g}" if abs(value) < 10**digits else f"{value:,.0f}"
    return text.replace("-", "−", 1) if value < 0 else text


def share(value: float) -> str:
    """A share of one in per cent with one decimal, so that figures side by side line up."""
    return f"{100 * value:.1f}%"


def x_axis(values: Sequence[float], percent: bool) -> list[float]:
    """Ticks of the x axis; steps are whole numbers and one lone step still gets an axis around it."""
    low, high = min(values), max(values)
    if percent:
        return [0, 0.25, 0.5, 0.75, 1]
    if all(float(v).is_integer() for v in values):
        return nice(low, max(high, low + 1), 5, whole=True)
    return nice(low, high, 5)


def y_axis(values: Sequence[float], percent: bool, log: bool) -> list[float]:
    """Ticks of the y axis: shares start at 0, other values are framed closely."""
    low, high = min(values), max(values)
    if log:
        lowest, highest = math.floor(math.log10(min(v for v in values if v > 0))), math.ceil(math.log10(high))
        return [10.0**power for power in range(lowest, max(highest, lowest + 1) + 1)]
    if percent:
        return nice(min(low, 0), max(high, 0.01), 4)
    if low == high:
        return nice(low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1), 4)
    return nice(0 if 0 < low < 0.5 * high else low, high, 4)


def nice(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` round ticks whose first and last enclose [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    if whole:
        step = max(1, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]
