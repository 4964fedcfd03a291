"""Compares two expressions by their values at a few points.

Two expressions are equal if they are real at the same points and have the same values there: a convention, by which
`\\sqrt{1/k}` equals `1/\\sqrt{k}`, and `\\sqrt{x^2}` does not equal `x`. Comparing values is exact enough for benchmarks, takes
about a millisecond, and needs no simplification, which may take for ever.
"""

from typing import Any

import mpmath

from amrsd_jax.tasks.expressions import DIGITS, EQUAL, Expression, Unsupported, Values, exact, is_real, to_digits

# Values that agree are compared once more to so many digits at least, or at most as large constants need, our choice: 2^{100} is
# not 2^{100} + 1.
_FINER, _FINEST = 200, 6_000


def points(names: frozenset[str]) -> list[dict[str, Any]]:
    """Returns twelve points for some variables: six positive ones, then six of either sign. Equal names give equal points."""
    scales = (1, 1, 1, 5, 20, 0.2, 1, 1, 3, 10, 1, 0.3)
    negative, result = 0.75 if len(names) == 1 else 0.5, []
    for k, scale in enumerate(scales):
        point = {}
        for name in sorted(names):
            share = _share(f"{name} {k}")
            sign = -1 if k >= len(scales) // 2 and _share(f"sign {name} {k}") < negative else 1
            point[name] = sign * scale * (exact(share) + 0.37)
        result.append(point)
    return result


def _share(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text, the same in every process."""
    state = 2166136261
    for byte in text.encode():
        state = (state ^ byte) * 16777619 % 2**32
    state = (state ^ (state >> 15)) * 2246822519 % 2**32
    return (state ^ (state >> 13)) % 2**32 / 2**32


def same(a: Expression, b: Expression, tolerance: float | None = None) -> bool | None:
    """Whether two expressions are equal; None if too few points have values.

    Args:
      tolerance: largest relative difference of equal values, where a decimal number may be rounded.

    Raises:
      Unsupported: a number on the way is too large.
    """
    names = a.names | b.names
    if not names:
        u, v = a.at({}), b.at({})
        return None if u is None or v is None else _equal(a, b, {}, u, v, tolerance)
    compared = 0
    for point in points(names):
        u, v = a.at(point), b.at(point)
        if u is None or v is None:
            continue
        real = is_real(u), is_real(v)
        if real[0] != real[1]:
            return False
        if not all(real) and any(value < 0 for value in point.values()):
            continue  # which branch of a root is meant is a convention
        if not _equal(a, b, point, u, v, tolerance):
            return False
        compared += 1
    return True if compared >= 3 else None


def close(u: Any, v: Any, tolerance: float | None = None) -> bool:
    """Whether two values are equal up to a relative difference."""
    return bool(abs(u - v) <= (EQUAL if tolerance is None else tolerance) * max(abs(u), abs(v)))


def _equal(a: Expression, b: Expression, point: Values, u: Any, v: Any, tolerance: float | None) -> bool:
    """Returns whether values at a point are equal up to the tolerance, or without one also at a higher precision."""
    if not close(u, v, tolerance):
        return _both_vanish(a, b, point, u, v)
    if tolerance is not None or u == v == 0:
        return True
    digits = _FINER if point else min(_FINEST, _FINER + max(0, int(mpmath.log10(max(abs(u), abs(v))))))
    try:
        finer = to_digits(a, b, point, digits)
    except Unsupported:
        return True
    # Half of the digits may be lost: a root of what should be 0, an arcsine of what should be 1.
    limit = exact(10) ** (_FINER * 5 // 8 - digits)
    return None in finer or bool(abs(finer[0] - finer[1]) <= limit * max(map(abs, finer)))


def _both_vanish(a: Expression, b: Expression, point: Values, u: Any, v: Any) -> bool:
    """Returns whether both values are 0 up to rounding: they then shrink as the precision grows."""
    if max(abs(u), abs(v)) > 10.0 ** (-DIGITS // 2):
        return False
    finer = to_digits(a, b, point, 2 * DIGITS)
    return all(w is not None and abs(w) <= 1e-10 * abs(z) for w, z in zip(finer, (u, v), strict=True))


def ratio(a: tuple[Expression, Expression], b: tuple[Expression, Expression]) -> Any:
    """Returns the constant k with `a[0] - a[1] = k (b[0] - b[1])` wherever both are real; None if there is none, or k = 0.

    Raises:
      Unsupported: a number on the way is too large.
    """
    names = frozenset().union(*(side.names for side in (*a, *b)))
    found, compared = None, 0
    for point in points(names):
        values = [side.at(point) for side in (*a, *b)]
        if any(value is None or not is_real(value) for value in values):
            continue
        u, v = mpmath.re(values[0] - values[1]), mpmath.re(values[2] - values[3])
        if u == 0 or v == 0 or (found is not None and not close(u / v, found)):
            return None
        found, compared = u / v, compared + 1
    return found if compared >= 3 else None
