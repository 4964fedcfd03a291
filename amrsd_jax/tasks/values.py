"""Compares values: expressions with their units, per cent signs, bases and roundings."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from amrsd_jax.tasks import equality, expressions, units
from amrsd_jax.tasks.brackets import outer, pieces

ROUNDED = 1e-5  # largest relative difference of equal values where a decimal point may stand for rounding, our choice
STATED = 3  # significant digits from which a decimal gold answer may be the rounding of an exact answer, our choice
GIVEN = 4  # significant digits from which a decimal answer may be the rounding of an exact gold answer, our choice
CUT = 6  # significant digits from which a decimal number may also be cut off instead of rounded, our choice

Ask = Callable[[str, str], bool]

APPROXIMATES = re.compile(r"\\approx(?![A-Za-z])")
DECIMAL = re.compile(r"-?(\d*)\.(\d+)(?:\*10\^\{(-?\d+)\})?")
_AMOUNT = re.compile(r"(?:(?<=[a-z.]\})|(?<=[a-z.]\s\}))(?<!(?:log|exp|mod|gcd|lcm)\})\s*(?=\d)")
_BASE = re.compile(r"(-?([\dA-F]+))_\{?(\d{1,2})\}?")
_INTEGER = re.compile(r"-?\d+")
_WORDS_IN_VALUE = re.compile(r"\\text\{([^{}]*)\}|(?<![\\A-Za-z])([A-Za-z]{4,})")


def equal(gold: str, answer: str, ask: Ask) -> bool:
    """Compares values with units or percent signs.

    Per cent are hundredths, `35%` = 0.35, or the unit of the question, `35%` = 35; a bare gold answer of at most 1 is a share, so
    that 0.5% is not 1/2.
    """
    amounts = [_AMOUNT.split(text) for text in (gold, answer)]
    if len(amounts[0]) == len(amounts[1]) > 1:  # 2 hours 30 minutes, which is no product
        return all(equal(x.strip(), y.strip(), ask) for x, y in zip(*amounts, strict=True))
    gold, answer = units.letters_as_in(gold, answer), units.letters_as_in(answer, gold)
    gold, gold_unit = units.split(gold)
    answer, answer_unit = units.split(answer)
    if not gold_unit.agrees(answer_unit):
        return False
    shares = gold.endswith("%"), answer.endswith("%")
    gold, answer = (re.sub(r"\s*%$", "", text).strip() for text in (gold, answer))
    ratios = _ratio(gold), _ratio(answer)
    if all(ratios):
        return _proportional(*ratios, ask)
    if not any(shares) or all(shares):
        return _values(gold, answer, ask)
    if (answer_unit if shares[0] else gold_unit).powers and gold_unit != answer_unit:
        return False  # 7 per mille, or 7 apples, are not 7 per cent
    if shares[0]:
        return (
            _values(gold, answer, ask) or _values(f"({gold})/100", answer, ask) or _values(gold, f"100*({answer})", ask)
        )
    share = value(gold)
    if share is not None and abs(share) <= 1:
        return _values(gold, f"({answer})/100", ask) or _values(f"100*({gold})", answer, ask)
    return _values(gold, answer, ask) or _values(gold, f"({answer})/100", ask)


def _ratio(text: str) -> list[str] | None:
    parts = pieces(text, (":",))
    return parts if len(parts) > 1 and all(parts) else None


def _proportional(a: list[str], b: list[str], ask: Ask) -> bool:
    if len(a) != len(b):
        return False
    if all(_values(x, y, ask) for x, y in zip(a, b, strict=True)):
        return True
    return all(_values(f"({x})({b[0]})", f"({y})({a[0]})", ask) for x, y in zip(a, b, strict=True))


def _values(gold: str, answer: str, ask: Ask) -> bool:
    """Compares two expressions, a decimal number among them with regard to its rounding."""
    base = [_number_to_a_base(text) for text in (gold, answer)]
    if any(base):  # a base may be missing, as a unit may
        digits = [found[0] if found else text for found, text in zip(base, (gold, answer), strict=True)]
        return base[0] is not None and digits[0] == digits[1] and (base[1] is None or base[0] == base[1])
    gold, answer = (re.sub(r"(?<=[^:]):(?=[^:])", "/", text) for text in (gold, answer))
    if any(_dangling(text) or re.search(r"(?<![_\d])\d+ \d", text) for text in (gold, answer)):
        return False
    a, b = expressions.parse(gold), expressions.parse(answer)
    if a is None or b is None:
        return undecided(gold, answer, ask)
    if factors := (a.functions - b.functions) & b.names | (b.functions - a.functions) & a.names:
        a, b = expressions.parse(gold, factors), expressions.parse(answer, factors)  # h(a+b) and ah+bh
    try:
        variables = a.names | b.names
        if (verdict := equality.same(a, b, ROUNDED if variables and has_point(gold, answer) else None)) is None:
            return undecided(gold, answer, ask)
        if verdict or variables:
            return verdict
        u, v = a.at({}), b.at({})
        return _rounds(gold, answer, u, v) or (has_point(gold, answer) and near(u, v))
    except expressions.Unsupported:
        return undecided(gold, answer, ask)


def _number_to_a_base(text: str) -> tuple[str, str] | None:
    """Returns the digits and the base of `4343_6` or `AB_{16}`; None for other text, such as the name `A_1`."""
    match = _BASE.fullmatch(text)
    if not match or max(int(digit, 16) for digit in match[2]) >= int(match[3]):
        return None
    return (match[1], match[3]) if len(match[2]) > 1 or match[2].isdigit() else None


def undecided(gold: str, answer: str, ask: Ask) -> bool:
    """Asks about two values, unless words or a relation in one of them say something that the other does not."""
    plain = [re.sub(r"\\(?:begin|end)\{[^{}]*\}", "", text) for text in (gold, answer)]
    words = [sorted("".join(found) for found in _WORDS_IN_VALUE.findall(text)) for text in plain]
    return (
        words[0] == words[1]
        and gold.count("'") == answer.count("'")
        and outer(gold).count("=") == outer(answer).count("=")
        and ask(gold, answer)
    )


def near(u: Any, v: Any) -> bool:
    """Whether two values agree to six decimals, and in their first digits."""
    return bool(abs(u - v) <= 1e-6) and equality.close(u, v, ROUNDED)


def has_point(gold: str, answer: str) -> bool:
    return bool(re.search(r"\.\d|\d\.", re.sub(r"\.\d*\\overline", "", gold + " " + answer)))


def _dangling(text: str) -> bool:
    """Whether a text ends in an operator, as `7+`: nothing that has a value."""
    return bool(re.search(r"[-+*/^=]$", text))


def _rounds(gold: str, answer: str, u: Any, v: Any) -> bool:
    """Whether one value is a decimal number, with digits enough, to which the exact value of the other is rounded or cut."""
    if not (expressions.is_real(u) and expressions.is_real(v)):
        return False
    for text, rounded, other, exact, digits in ((gold, u, answer, v, STATED), (answer, v, gold, u, GIVEN)):
        decimal = DECIMAL.fullmatch(text)
        if not decimal or DECIMAL.fullmatch(other) or _INTEGER.fullmatch(other):
            continue
        places = len(decimal[2]) - int(decimal[3] or 0)
        written = len((decimal[1] + decimal[2]).lstrip("0"))
        if abs(places) > 1000 or written < digits:
            continue
        step = Fraction(10) ** -places
        difference = abs(expressions.fraction(rounded) - expressions.fraction(exact))
        cut = abs(rounded) <= abs(exact) and difference < step
        if difference <= step / 2 or (cut and written >= CUT):
            return True
    return False


def value(text: str) -> Any:
    """Returns the value of an expression without variables, None for other text."""
    number, _ = units.split(APPROXIMATES.split(text)[0])
    expression = expressions.parse(number.strip().rstrip("."))
    try:
        return expression.at({}) if expression is not None and not expression.names else None
    except expressions.Unsupported:
        return None
