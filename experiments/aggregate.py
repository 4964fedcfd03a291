"""Numbers from learning curves: steps to a level, area, and bootstrap intervals of paired differences. No I/O."""

import statistics
from collections.abc import Sequence

import numpy as np

from amrsd_jax import rng

RESAMPLES = 4000


def reached(steps: Sequence[int], values: Sequence[float], level: float) -> float:
    """The first evaluated step whose value is at least `level`; infinity if there is none."""
    return next((float(step) for step, value in zip(steps, values, strict=True) if value >= level), float("inf"))


def middle(values: Sequence[float]) -> float:
    """The lower median, so that some infinities ("never") do not make half an infinity."""
    return statistics.median_low(values)


def final(values: Sequence[float]) -> float:
    """Mean of the last two evaluations."""
    return float(np.mean(values[-2:]))


def area(x: Sequence[float], values: Sequence[float], until: float) -> float:
    """Mean of the curve from x[0] to `until`: trapezoids, the last one cut where it ends.

    Args:
      x: increasing, in any unit (rollouts, seconds).
      values: at x.
      until: in the same unit, above x[0] and at most x[-1].

    Raises:
      ValueError: `until` is not within the curve.
    """
    if not x[0] < until <= x[-1]:
        raise ValueError(f"area until {until}: the curve goes from {x[0]} to {x[-1]}")
    inside = [place for place in x if place < until]
    places = np.array([*inside, until])
    return float(np.trapezoid(np.interp(places, x, values), places) / (until - x[0]))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the values and its bootstrap 95 % percentile interval; the ends are the mean if there is one value."""
    sample = np.asarray(values, float)
    drawn = rng.host(0, "bootstrap").integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.quantile(sample[drawn].mean(axis=1), (0.025, 0.975))
    return float(sample.mean()), float(low), float(high)


def paired(values: dict, baseline: dict) -> tuple[float, float, float] | None:
    """`interval` of the differences to a baseline, over the keys that both have; None if they share none."""
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[key] - baseline[key] for key in shared]) if shared else None
