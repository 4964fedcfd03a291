"""Reads sets of real numbers, written as intervals, unions or inequalities, as lists of intervals with numbers as ends."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath

from amrsd_jax.tasks.brackets import inside, pieces
from amrsd_jax.tasks.expressions import Expression, Unsupported, exact, parse

INFINITY = mpmath.inf
RELATION = re.compile(r"<|>|\\(?:le|ge|ne)(?![A-Za-z])")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


class Interval(NamedTuple):
    """An interval; a point if its ends are equal."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


Region = list[Interval]
LINE = [Interval(-INFINITY, False, INFINITY, False)]


def region(text: str) -> tuple[Region, str] | None:
    """Returns (disjoint intervals in ascending order, name of the variable or ""); None for other text."""
    try:
        found = _region(text)
    except (Unsupported, TypeError, ValueError, ArithmeticError):
        return None
    return None if found is None else (_merged(found[0]), found[1])


def equal(a: Region, b: Region, near: Callable[[Any, Any], bool]) -> bool:
    """Whether two regions have the same ends; `near` compares two finite ends."""
    return len(a) == len(b) and all(
        x.low_closed == y.low_closed
        and x.high_closed == y.high_closed
        and all(
            u == v or (mpmath.isfinite(u) and mpmath.isfinite(v) and near(u, v))
            for u, v in ((x.low, y.low), (x.high, y.high))
        )
        for x, y in zip(a, b, strict=True)
    )


def _region(text: str) -> tuple[Region, str] | None:
    text = re.sub(r"(?<![A-Za-z\\])[fgh]\([a-z]\)", "y", text)
    if belongs := re.fullmatch(r"([A-Za-z])\\in(?![A-Za-z])\s*(.*)", text, re.DOTALL):
        found = _region(belongs[2])
        return found and (found[0], belongs[1])
    for separator in (r"\cup", "or"):
        parts = pieces(text, (separator,))
        if len(parts) > 1:
            found = [_region(part) for part in parts]
            names = {part[1] for part in found if part}
            return (
                ([interval for part in found for interval in part[0]], max(names))
                if all(found) and len(names - {""}) < 2
                else None
            )
    parts = pieces(text, ("and",))
    if len(parts) == 2 and RELATION.search(text):
        both = [_region(part) for part in parts]
        names = {part[1] for part in both if part}
        found = all(both) and len(names) == 1
        return (_intersection(_merged(both[0][0]), _merged(both[1][0])), names.pop()) if found else None
    parts = pieces(text, (r"\setminus", r"\backslash"))
    if len(parts) == 2:
        whole, removed = _region(parts[0]), _region(parts[1])
        return (_without(whole[0], removed[0]), whole[1]) if whole and removed else None
    if RELATION.search(text):
        return _inequality(text)
    if re.fullmatch(r"\\mathbb\{?R\}?|\\R", text):
        return LINE, ""
    if text.strip() == r"\emptyset":
        return [], ""
    if content := inside(text):
        return _bracketed(text, content)
    return None


def _bracketed(text: str, content: str) -> tuple[Region, str] | None:
    ends = [_number(part) for part in pieces(content, (",", ";"))]
    if any(end is None for end in ends):
        return None
    if text.startswith(r"\{"):
        return [Interval(end, True, end, True) for end in ends], ""
    if len(ends) == 2 and text[0] in "([" and text[-1] in ")]" and ends[0] <= ends[1]:
        return [Interval(ends[0], text[0] == "[", ends[1], text[-1] == "]")], ""
    return None


def _number(text: str) -> Any:
    """Returns the real value of a text, also of an infinity; None without one."""
    text = re.sub(r"\s", "", text)
    if text in (r"\infty", r"+\infty", r"-\infty"):
        return -INFINITY if text[0] == "-" else INFINITY
    expression = parse(text)
    value = expression.at({}) if expression is not None and not expression.names else None
    return value if value is None or mpmath.im(value) == 0 else None


def _inequality(text: str) -> tuple[Region, str] | None:
    """Reads a chain of inequalities in one variable whose sides are linear in it, or |linear|."""
    sides, relations = RELATION.split(text), RELATION.findall(text)
    if any(side.strip() == "" for side in sides) or len(sides) > 3:
        return None
    found, names = LINE, set()
    for left, relation, right in zip(sides, relations, sides[1:], strict=False):
        step = _one(left.strip(), relation, right.strip())
        if step is None:
            return None
        found = _intersection(found, _merged(step[0]))
        names.add(step[1])
    return (found, names.pop()) if len(names) == 1 else None


def _one(left: str, relation: str, right: str) -> tuple[Region, str] | None:
    for text, other, sign in ((left, right, relation), (right, left, _FLIPPED[relation])):
        infinite = _number(other) if other.strip().endswith(r"\infty") else None
        if infinite is not None:
            expression = parse(text)
            return (LINE, *expression.names) if expression and len(expression.names) == 1 else None
        if re.fullmatch(r"\|[^|]+\|", text) and (bound := _number(other)) is not None:
            return _absolute(text[1:-1], sign, bound)
    a, b = parse(left), parse(right)
    if a is None or b is None or len(a.names | b.names) != 1:
        return None
    return _linear(a, b, 0, relation)


def _absolute(text: str, relation: str, bound: Any) -> tuple[Region, str] | None:
    linear, zero = parse(text), parse("0")
    if linear is None or len(linear.names) != 1 or bound < 0:
        return None
    above, below = _linear(linear, zero, bound, relation), _linear(linear, zero, -bound, _FLIPPED[relation])
    if above is None or below is None:
        return None
    together = above[0] + below[0] if relation in (">", r"\ge") else _intersection(above[0], below[0])
    return together, above[1]


def _linear(a: Expression, b: Expression, bound: Any, relation: str) -> tuple[Region, str] | None:
    """Solves a - b relation bound if a - b is linear in its one variable."""
    (name,) = a.names | b.names
    values = []
    for place in (0, 1, 2, -5):
        u, v = a.at({name: exact(place)}), b.at({name: exact(place)})
        if u is None or v is None:
            return None
        values.append(u - v)
    slope = values[1] - values[0]
    if slope == 0 or any(
        abs(values[0] + slope * place - value) > 1e-20 * (1 + abs(value))
        for place, value in zip((2, -5), values[2:], strict=True)
    ):
        return None
    end = (bound - values[0]) / slope
    if slope < 0:
        relation = _FLIPPED[relation]
    closed = relation in (r"\le", r"\ge")
    if relation == r"\ne":
        return _without(LINE, [Interval(end, True, end, True)]), name
    if relation in ("<", r"\le"):
        return [Interval(-INFINITY, False, end, closed)], name
    return [Interval(end, closed, INFINITY, False)], name


def _merged(region: Region) -> Region:
    """Sorts intervals and joins those that overlap or touch."""
    result: Region = []
    for part in sorted(region, key=lambda i: (i.low, not i.low_closed)):
        if part.low > part.high or (part.low == part.high and not (part.low_closed and part.high_closed)):
            continue
        last = result[-1] if result else None
        if last and (part.low < last.high or (part.low == last.high and (part.low_closed or last.high_closed))):
            high, closed = max((last.high, last.high_closed), (part.high, part.high_closed))
            result[-1] = Interval(last.low, last.low_closed, high, closed)
        else:
            result.append(part)
    return result


def _intersection(a: Region, b: Region) -> Region:
    result = []
    for x in a:
        for y in b:
            low, low_open = max((x.low, not x.low_closed), (y.low, not y.low_closed))
            high, high_closed = min((x.high, x.high_closed), (y.high, y.high_closed))
            result.append(Interval(low, not low_open, high, high_closed))
    return _merged(result)


def _without(region: Region, removed: Region) -> Region:
    for gap in removed:
        left = Interval(-INFINITY, False, gap.low, not gap.low_closed)
        right = Interval(gap.high, not gap.high_closed, INFINITY, False)
        region = _intersection(_merged(region), [left, right])
    return region
