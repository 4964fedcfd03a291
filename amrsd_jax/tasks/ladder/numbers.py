"""Reads numbers and equations in free text, and the number that the text gives as its answer.

The reading is lenient about form and strict about doubt: a number that is denied, hedged, asked about, part of another number
or followed by another result is no answer. Patterns are bounded, so the time is linear in the length of the text.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection
from fractions import Fraction

from amrsd_jax.tasks import numerals

_DIGITS = 15  # of a number whose value is read; a longer one has none, our choice


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a text: its value, None where it cannot be read, and its characters [start, end)."""

    value: Fraction | None
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of an equation, or an expression without one: numbers, each with the operator before it ("" before the first).

    Attributes:
      numbers, operators: as written.
      places: where each operator is.
      value: None where it cannot be read.
    """

    numbers: tuple[Number, ...]
    operators: tuple[str, ...]
    places: tuple[int, ...]
    value: Fraction | None

    @property
    def start(self) -> int:
        """First character."""
        return self.numbers[0].start

    @property
    def end(self) -> int:
        """The character behind the last one."""
        return self.numbers[-1].end

    @property
    def bare(self) -> bool:
        """Whether it is a number alone."""
        return len(self.numbers) == 1


Equation = tuple[Side, ...]  # of equal value, as the text says; one side alone is an expression without a result

# ---------------------------------------------------------------- one notation, of the same length

_SAME_LENGTH = [
    (re.compile(r"[−–—]"), "-"),
    (re.compile(r"÷"), "/"),
    (re.compile(r"(?<=[0-9] )(?:plus|added to)(?= [0-9])", re.IGNORECASE), "+"),
    (re.compile(r"(?<=[0-9] )(?:minus|take away)(?= [0-9])", re.IGNORECASE), "-"),
    (re.compile(r"(?<=[0-9] )(?:times|multiplied by)(?= [0-9])|\\(?:times|cdot)(?![a-z])", re.IGNORECASE), "*"),
    (re.compile(r"(?<=[0-9] )(?:divided by)(?= [0-9])|\\div(?![a-z])", re.IGNORECASE), "/"),
    (re.compile(r"(?<=[0-9])(?<! )[x×·](?=[0-9])|(?<=[0-9] )[x×·](?= [0-9])|[×·]"), "*"),
    # A sign, beside its number; behind another word it may be a difference, "3 apples minus 7".
    (re.compile(r"(?:(?<=\bis )|(?<=\bequals )|(?<=[=:] ))(?:minus|negative) (?=[0-9])", re.IGNORECASE), "-"),
    (re.compile(r"(?:\b(?:is|are) )?\b(?:equals|equal to|makes|gives|is)(?= {1,10}-?[0-9])", re.IGNORECASE), "⇒"),
    (re.compile(r"\*\*(?![0-9])|(?<![0-9])\*\*|__|\$|\\[()\[\]]|\\boxed\{|\\text\{"), " "),
]  # fmt: skip


def in_one_notation(text: str) -> str:
    """Returns a text of the same length with one sign for each operation, and `⇒` for words that say `=`."""
    for pattern, sign in _SAME_LENGTH:
        text = pattern.sub(lambda m, sign=sign: (sign.rjust if m[0][-1] == " " else sign.ljust)(len(m[0])), text)
    return text


def shown(value: Fraction | None) -> str:
    """Returns a value as digits."""
    return "the number" if value is None else str(value) if value.denominator == 1 else f"{float(value):.10g}"


# ---------------------------------------------------------------- numbers and equations

_WORD = "|".join(sorted(numerals.NUMBER_WORDS, key=len, reverse=True))
_NUMBER = re.compile(
    r"(?<![\w.^])(?<!\d[,:])(?!(?<![^\n])[1-9]\. {1,3}[A-Za-z])"  # no number of a list item
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![0-9]|(?:st|nd|rd|th)\b)"
    rf"|(?<![\w-])(?:{_WORD})(?:(?:[ -]|,? and )(?:{_WORD})){{0,9}}(?![\w-])",
    re.IGNORECASE,
)
_COUNTED = re.compile(  # behind number words that say how many are spoken of
    r" (?:\w{1,12} )?(?:numbers?|digits?|equations?|variables?|sides?|steps?|parts?|ways?|things?|terms?|is not|is an?)\b",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r" {0,9}([+\-*/]) {0,9}(?=[0-9])")
_EQUALS = re.compile(r"\s{0,9}[=⇒] {0,14}(?=-?[0-9])")
_NEGATIVE = re.compile(r"(?:^|[^\w)\s.,-]|[=⇒:] {1,14}|\w )-\Z")
_OPEN = re.compile(r"[-+*/^(]\s{0,9}\Z")  # before a side: it began earlier
_GOES_ON = re.compile(
    r" {0,9}(?:[+*/^] {0,9}[\w(]|- {0,9}[0-9(])|[\w%°²³(]|:[0-9]"
)  # behind a side: it does not end here
_SUM_LENGTH = 12  # numbers of a side


def numbers(text: str, *, prose: bool = False) -> list[Number]:
    """Returns the numbers of a text in one notation.

    Args:
      prose: whether all number words count, and not only those that are said as a result or stand alone.
    """
    found = _NUMBER.finditer(text)
    return [_number(text, match) for match in found if prose or match[0][0].isdigit() or _is_value(text, match)]


def _is_value(text: str, match: re.Match) -> bool:
    """Returns whether number words are a value: "two numbers" and "this one" are none."""
    before = text[max(0, match.start() - 40) : match.start()]
    said = _SAYS.search(before) or re.search(r"(?:\A|[.!?\n]\s{0,3}|\bor |[*\"'(])\Z", before)
    return said is not None and match[0].lower() != "one" and not _COUNTED.match(text, match.end())


def _number(text: str, match: re.Match) -> Number:
    written, start = match[0], match.start()
    if written[0].isdigit():
        digits = written.replace(",", "")
        value = Fraction(digits) if len(digits) <= _DIGITS else None
        if value is not None and _NEGATIVE.search(text[max(0, start - 12) : start]):
            return Number(-value, start - 1, match.end())
        return Number(value, start, match.end())
    digits = numerals.spoken(written.replace(",", ""))
    return Number(Fraction(digits) if digits else None, start, match.end())


def equations(text: str) -> list[Equation]:
    """Returns the equations of a text in one notation in order, and its expressions with an operator that have no result."""
    digits = [number for number in numbers(text) if text[number.end - 1].isdigit()]
    found, index = [], 0
    while index < len(digits):
        sides = [_side(text, digits, index)]
        index += len(sides[-1].numbers)
        while index < len(digits) and _joins(_EQUALS, text, digits[index - 1], digits[index]):
            sides.append(_side(text, digits, index))
            index += len(sides[-1].numbers)
        if len(sides) > 1 or not sides[0].bare:
            found.append(tuple(sides))
    return found


def false_side(sides: Equation, text: str) -> Side | None:
    """Returns the first side of an equation whose value differs from that of the side before it; None if it is true.

    Two bare numbers with words between them, as in "the sum of 2 and 8 is 16", are no equation.
    """
    for before, side in itertools.pairwise(sides):
        words = before.bare and side.bare and "⇒" in text[before.end : side.start]
        if None not in (before.value, side.value) and before.value != side.value and not words:
            return side
    return None


def _side(text: str, digits: list[Number], index: int) -> Side:
    """Returns the expression that begins with a number; it has no value where it is part of a larger one."""
    members, operators, places = [digits[index]], [""], [digits[index].start]
    for number in digits[index + 1 : index + _SUM_LENGTH]:
        joint = _joins(_OPERATOR, text, members[-1], number)
        if not joint:
            break
        members.append(number)
        operators.append(joint[1])
        places.append(joint.start(1))
    part = _GOES_ON.match(text, members[-1].end) or _OPEN.search(text[max(0, members[0].start - 12) : members[0].start])
    return Side(tuple(members), tuple(operators), tuple(places), None if part else _value(members, operators))


def _joins(pattern: re.Pattern, text: str, first: Number, second: Number) -> re.Match | None:
    """Returns the match of a pattern between two numbers if nothing else is there."""
    joint = pattern.match(text, first.end)
    return joint if joint and joint.end() == second.start else None


def _value(members: list[Number], operators: list[str]) -> Fraction | None:
    """Returns the value of an expression, products before sums; None where it has none."""
    terms: list[Fraction] = []
    for number, operator in zip(members, operators, strict=True):
        if number.value is None or (operator == "/" and not number.value):
            return None
        if operator == "*":
            terms[-1] *= number.value
        elif operator == "/":
            terms[-1] /= number.value
        else:
            terms.append(-number.value if operator == "-" else number.value)
    return sum(terms, Fraction())


# ---------------------------------------------------------------- the answer


@dataclasses.dataclass(frozen=True)
class Stated:
    """The number that a text gives as its answer.

    Attributes:
      number: None if no number is stated as a result.
      doubt: the characters that make it no answer: a denial, a hedge, another result after it; None if there are none.
    """

    number: Number | None
    doubt: tuple[int, int] | None = None


_SAYS = re.compile(
    r"(?:[=⇒:>]|\b(?:is|are|was|were|be|been|equals?|makes?|gives?|gets?|got|has|have|had|left|answer|total(?: of)?)\b)"
    r"[^\w.!?\n=⇒-]{0,14}(?:(?:exactly|now|only|just|equal to|in total|then) )?-?\Z"
)
_ENDS = re.compile(r"(?:[=⇒:>]|\b(?:answer|total(?: of)?)\b)[^\w.!?\n=⇒-]{0,14}-?\Z")
_DENIES = re.compile(
    r"\b(?:not|no|never|cannot|wrong|incorrect|false|wait|actually|instead|sorry|oops|rather|mistake|nor|neither|unless)\b|n['’]t\b"
    r"|\bor\b(?=[^.!?\n]{0,20}[0-9])|!=|[≠<>≈≤≥~]",
    re.IGNORECASE,
)
_HEDGES = re.compile(
    r"\b(?:about|almost|nearly|approximately|roughly|around|at (?:least|most)|(?:more|less|fewer|other) than|over|under|between|"
    r"or|either|maybe|perhaps|up to)\b[^\w.!?\n]{0,9}\Z|[=⇒:(] {0,3}- {1,3}\Z",
    re.IGNORECASE,
)
_CHANGES = re.compile(
    r" {0,3}(?:[%°²³^]|,? (?:or|plus|minus|times|point|percent|thousand|hundred|million|billion|dozen|squared|cubed|remainder|"
    r"and (?:a|one|two|three)|divided|multiplied|less|more) ?|/|[-+*] ?[0-9(]|:[0-9]|\s?\?)"
    r"|(?<=[0-9])(?:[a-z](?![a-z])(?<![mshd])|e[0-9])",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(r" {0,3}[-+*/=⇒]\s{0,3}[\"'.~]?\s{0,3}\Z")  # behind the first number of a cut equation
_SENTENCE = re.compile(r"[.!?](?=\s)|\n")


def answer(text: str, given: Collection[Fraction]) -> Stated:
    """Returns the number that a text in one notation gives as its answer: the last one that is stated as a result.

    A number is stated as a result if it is the side of an equation, stands behind a word such as "is", is all of the text, or is
    none of the numbers that are `given` by the question.
    """
    found, expressions = numbers(text), equations(text)
    sides = [(side, equation) for equation in expressions for side in equation]
    within = {number: (side, equation) for side, equation in sides for number in side.numbers}
    alone = [
        number
        for number in found
        if (number not in within or within[number][0].bare) and not _UNFINISHED.match(text, number.end)
    ]
    results = {
        number: within[number][1]
        for number in alone
        if number in within and number.start in (within[number][1][0].start, within[number][1][-1].start)
    }
    whole = len(text.strip("*.! \n")) < 4
    stated = [
        number
        for number in alone
        if whole or number in results or number.value not in given or is_result(text, number, restated=True)
    ]
    if not stated:
        return Stated(None)
    number = stated[-1]
    end = results[number][-1].end if number in results else number.end
    return Stated(number, _doubt(text, number, end, given, sides))


def is_result(text: str, number: Number, *, restated: bool = False) -> bool:
    """Returns whether a number stands behind words or a sign that state a result.

    Args:
      restated: whether the number may repeat the question, as in "Anna has 6 apples", so that fewer words count.
    """
    before = text[max(0, number.start - 40) : number.start]
    return (_ENDS if restated else _SAYS).search(before) is not None


def changes(text: str, number: Number) -> re.Match | None:
    """Returns the match of what follows a number and makes another one of it, as in `12 thousand` and `12 or 13`."""
    return _CHANGES.match(text, number.end)


def _doubt(
    text: str, number: Number, end: int, given: Collection[Fraction], sides: list[tuple[Side, Equation]]
) -> tuple[int, int] | None:
    """Returns the characters that make a number no answer, None if there are none.

    Args:
      end: the end of the number's equation.
    """
    before = max((match.end() for match in _SENTENCE.finditer(text[: number.start])), default=0)
    if match := _DENIES.search(text, before, number.start) or _DENIES.search(text, end):
        return match.span()
    if match := _HEDGES.search(text, before, number.start):
        return match.span()
    if match := changes(text, number):
        return number.start, match.end()
    later = (
        member.start
        for side, _ in sides
        if side.start >= end
        for member in side.numbers
        if member.value not in given and member.value != number.value
    )
    return next(((start, len(text)) for start in later), None)
