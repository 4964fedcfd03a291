"""Reviews answers that are the result of a calculation: what was calculated with what, and what came out."""

import re
from collections import Counter
from fractions import Fraction
from typing import Any

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder import numbers
from amrsd_jax.tasks.ladder.numbers import Equation, Number, Side
from amrsd_jax.tasks.ladder.rung import Exercise, Fault, Review, Rung

_DOES = {"+": "adds", "-": "subtracts", "*": "multiplies", "/": "divides"}
_NAMES = {  # words that name an operation
    "+": r"\badd|\bsum\b|\bplus\b", "-": r"subtract|\bminus\b|differen|take away", "*": r"multipl|\btimes\b|product",
    "/": r"divi[ds]",
}  # fmt: skip
_TOO_LARGE = r"too (?:large|big|high|much|many)|(?:should|must) be (?:smaller|less|lower)"
_TOO_SMALL = r"too (?:small|low|little|few)|(?:should|must) be (?:larger|bigger|more|higher|greater)"
_NO_RESULT = (
    r"\bno (?:number|result|answer|equation)|without a (?:number|result)|never|"
    r"(?:does|did) not (?:give|calculate|answer|finish)|ramble"
)


def facts(terms: list[tuple[str, int]], do: str, unit: str = "", other_units: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the facts of a calculation.

    Args:
      terms: the numbers, each with its operator: "+" or "-" for those of a sum, "*" for the factors of a product.
      do: what to do, as the end of "you should ...", without the result.
      unit: what the result counts, and `other_units` what it does not.
    """
    return {"terms": terms, "do": do, "unit": unit, "other_units": list(other_units)}


def equation(terms: list[tuple[str, int]]) -> str:
    """Returns a calculation with its result."""
    return f"{expression(terms)} = {result(terms)}"


def expression(terms: list[tuple[str, int]]) -> str:
    """Returns a calculation without its result."""
    return " ".join([str(terms[0][1]), *(f"{operator} {number}" for operator, number in terms[1:])])


def result(terms: list[tuple[str, int]]) -> int:
    """Returns the result of a calculation."""
    total = terms[0][1]
    for operator, number in terms[1:]:
        total = total + number if operator == "+" else total - number if operator == "-" else total * number
    return total


class Calculation(Rung):
    """A rung whose answer is the result of a calculation with the numbers of the question, or with known ones."""

    def exercise(self, question: str, terms: list[tuple[str, int]], content: str, do: str, **units: Any) -> Exercise:
        """Returns an exercise about a calculation."""
        return Exercise(question, str(result(terms)), self.reference(terms), content, facts(terms, do, **units))

    def reference(self, terms: list[tuple[str, int]]) -> str:
        """Returns a worked solution."""
        return equation(terms)

    def review(self, problem: Problem, text: str) -> Review:
        text = numbers.in_one_notation(text)
        terms, gold = problem.row["terms"], Fraction(problem.answer)
        given = {Fraction(number) for _, number in terms}
        stated, expressions = numbers.answer(text, given), numbers.equations(text)
        number, fault = stated.number, None
        wrong = next((side for sides in expressions if (side := numbers.false_side(sides, text))), None)
        if number is None:
            fault = _wrong_step(problem, text, expressions, gold) or _unfinished(problem, text, expressions)
        elif wrong or number.value != gold:
            fault = _wrong_step(problem, text, expressions, gold)
            if fault is None and _is_partial(expressions, number, given):
                fault = _unfinished(problem, text, expressions)
            fault = fault or _wrong_result(problem, wrong, number, given)
        elif stated.doubt:
            fault = _doubted(problem, text, stated.doubt)
        else:
            fault = _wrong_unit(problem, text, number)
        if number is None:
            return Review(None, None, fault)
        return Review(text[number.start : number.end], (number.start, number.end), fault)

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        terms, do = problem.row["terms"], problem.row["do"]
        marks = (*(rf"\b{number}\b" for _, number in terms), r"\bequation\b", r"at once|directly|without")
        wordings = [
            f"The decisive step is to {do}, without a long explanation.",
            f"Writing {expression(terms)} as an equation at once is what works here.",
            f"It helps to {do} and to stop after the result.",
            "The decisive step is to calculate at once and to stop after the result.",
        ]
        used = {number.value for number in numbers.numbers(numbers.in_one_notation(response), prose=True)}
        if used == {*(number for _, number in terms), int(problem.answer)}:
            wordings.insert(0, f"This answer works with {_listed(terms)} and with no other number.")
        return tuple(wordings), marks

    def states_answer(self, problem: Problem, text: str) -> bool:
        return states_number(text, problem.answer, {str(number) for _, number in problem.row["terms"]})


_PLACES = re.compile(r"\b(?:step|line)s? [0-9]{1,2}\b", re.IGNORECASE)


def states_number(text: str, gold: str, given: set[str]) -> bool:
    """Returns whether a text states a number, in digits or words; one that the question has too only as a result.

    The number of a step and an ordinal are no values.
    """
    text, value = numbers.in_one_notation(_PLACES.sub(" ", text)), Fraction(gold)
    found = [number for number in numbers.numbers(text, prose=True) if number.value == value]
    if gold not in given:
        return bool(found)
    return any(
        numbers.is_result(text, number)
        or re.match(r"[^.!?\n]{0,20}\b(?:is|=|⇒) the (?:answer|result)", text[number.end :])
        for number in found
    )


# ---------------------------------------------------------------- what is wrong


def _listed(terms: list[tuple[str, int]]) -> str:
    names = [str(number) for _, number in terms]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _is_partial(expressions: list[Equation], number: Number, given: set[Fraction]) -> bool:
    """Returns whether a number is in an equation whose sides all have values, while a number of the question is in none."""
    equations = [sides for sides in expressions if len(sides) > 1 and not all(side.bare for side in sides)]
    used = {each.value for sides in equations for side in sides if not side.bare for each in side.numbers}
    return bool(given - used) and any(
        sides[0].start <= number.start < sides[-1].end and all(side.value is not None for side in sides)
        for sides in equations
    )


def _unfinished(problem: Problem, text: str, expressions: list[Equation]) -> Fault:
    """Returns the fault of a text that gives no result."""
    do, end = problem.row["do"], len(text)
    if not expressions:
        lacking = "result" if re.search(r"[0-9]", text) else "number"
        return Fault(
            (0, max(1, end)),
            (f"there is no {lacking}",),
            (
                f"The attempt gives no {lacking}; it should {do}.",
                f"There is no result here, only words: {do} and write the result.",
                f"It talks about the question and never calculates; {do}.",
                f"The attempt gives no {lacking}; calculate at once and write the result.",
            ),
            (_NO_RESULT, r"\bonly words\b|talks?\b|explain"),
        )
    left = " ".join(text[expressions[-1][0].start : expressions[-1][-1].end].split())
    return Fault(
        (end, end + 1),
        ("it stops before a result",),
        (
            f"The attempt stops after {left} without a result; finish the calculation.",
            f"The result is missing behind {left}; {do} and write the result.",
            "The attempt stops before its result; write a shorter calculation and finish it.",
        ),
        (_NO_RESULT, r"stop|missing|unfinished|incomplete|finish"),
    )


def _doubted(problem: Problem, text: str, span: tuple[int, int]) -> Fault:
    """Returns the fault of a result that the text does not stand by."""
    words, do = " ".join(text[slice(*span)].split())[:20], problem.row["do"]
    return Fault(
        span,
        ("the result is taken back or goes on",),
        (
            f'The attempt does not stand by its result: "{words}" leaves it open; {do} and stop.',
            f"It goes on after its result and leaves the answer open; {do}, then stop.",
            "The attempt does not stop at one result; write one equation and nothing else.",
        ),
        (r"\bopen\b|stand by|goes? on|does not stop|more than one|several|keeps? going|after its result",),
    )


def _wrong_step(problem: Problem, text: str, expressions: list[Equation], gold: Fraction) -> Fault | None:
    """Returns the fault of the first equation that calculates with a wrong number, in a wrong way or wrongly.

    Each number is for one equation, whose result takes its place. An equation may be written again, or begin anew with all
    numbers; one without a result uses none up.
    """
    terms = problem.row["terms"]
    signs = {Fraction(number): operator for operator, number in terms}
    given = Counter(Fraction(number) for _, number in terms)
    unused, results, written = given.copy(), set(), [given]
    for sides in expressions:
        wrong = numbers.false_side(sides, text)
        if gold in results and wrong is None and sides[-1].value not in (gold, None):
            return _goes_on(problem, sides)
        begins = int(sides[0].bare and len(sides) > 1)  # `15 = 7 + 8` is an equation from behind
        first = Counter(number.value for number in sides[begins].numbers)
        new = len(sides) > 1 and first not in written
        for place, side in enumerate(sides):
            if side is wrong:
                return _false(problem, sides[place - 1], side)
            if not side.bare and (place == 0 or sides[0].bare):  # else it is the side before it, calculated further
                leading = side.numbers[0].value
                if signs.get(leading) == "-" and leading not in results:
                    return _wrong_order(problem, side)
                for number, operator, where in zip(side.numbers, side.operators, side.places, strict=True):
                    added = operator == "+" and number.value in results
                    if operator and operator != signs.get(number.value, operator) and not added:
                        return _wrong_operation(problem, operator, where, side.end)
                    if number.value not in signs and number.value not in results:
                        return _wrong_number(problem, number)
                    if new and place == begins and not unused[number.value]:
                        return _used_again(problem, number)
                    unused[number.value] -= new and place == begins
            if side.value is not None and place:
                results.add(side.value)
        if new:
            written.append(first)
            unused[sides[-1].value] += 1
    return None


def _false(problem: Problem, before: Side, side: Side) -> Fault:
    left, wrong, do = _written(before), _written(side), problem.row["do"]
    large = side.value > before.value
    size, other = ("large", "smaller") if large else ("small", "larger")
    return Fault(
        (side.start, side.end),
        (f"{left} is not {wrong}", f"{wrong} is not true", "the equation is not true"),
        (
            f"{left} is not {wrong}: that is too {size}.",
            f"The result {wrong} is too {size}; {do} again, it must be {other}.",
            f"{do[0].upper()}{do[1:]} more carefully, since {wrong} is too {size}.",
            f"The calculation is wrong: its result is too {size}.",
        ),
        (rf"(?<!\d){re.escape(wrong)}(?!\d)", _TOO_LARGE if large else _TOO_SMALL),
        (_TOO_SMALL if large else _TOO_LARGE,),
    )


def _goes_on(problem: Problem, sides: Equation) -> Fault:
    """Returns the fault of an equation that follows a right one."""
    written, do = _written(sides[-1]), problem.row["do"]
    return Fault(
        (sides[0].start, sides[-1].end),
        ("it goes on after its result",),
        (
            f"It goes on after its first result and ends with {written}; {do} and stop there.",
            f"The attempt does not stop after its first result; {do} and write nothing else.",
            "The attempt goes on after its result; stop after the first equation.",
        ),
        (rf"(?<!\d){re.escape(written)}(?!\d)", r"goes? on|keeps? going|(?:does|did) not stop|after its"),
    )


def _wrong_number(problem: Problem, number: Number) -> Fault:
    written, do, span = numbers.shown(number.value), problem.row["do"], (number.start, number.end)
    return Fault(
        span,
        (f"{written} is a wrong number to calculate with", "it calculates with a wrong number"),
        (
            f"The attempt calculates with {written}, which does not belong here; {do}.",
            f"{written} is not a number to work with; {do} instead.",
            f"It uses {written}, but it should {do}.",
            "The attempt calculates with a wrong number; use the numbers of the question.",
        ),
        (rf"(?<!\d){written}(?!\d)", r"wrong number|another number|not in the question"),
    )


def _used_again(problem: Problem, number: Number) -> Fault:
    written, do, span = numbers.shown(number.value), problem.row["do"], (number.start, number.end)
    return Fault(
        span,
        (f"{written} was used before", "a number is used twice"),
        (
            f"The attempt calculates with {written} again, which was used before; {do}.",
            f"{written} was used before: {do}, with every number once.",
            f"It uses {written} twice, but it should {do}.",
            "The attempt uses a number twice; use every number of the question once.",
        ),
        (rf"(?<!\d){written}(?!\d)", r"\bagain\b|\btwice\b|\bonce\b|used (?:before|already)|already used"),
    )


def _wrong_operation(problem: Problem, operator: str, start: int, end: int) -> Fault:
    does, do = _DOES[operator], problem.row["do"]
    return Fault(
        (start, end),
        (f"it {does}, which is the wrong operation", "it uses a wrong operation"),
        (
            f"The attempt {does}, but it should {do}.",
            f"It {does} where the question asks for something else: {do}.",
            f"Do not use {operator} here; {do}.",
            "The attempt uses a wrong operation; read again what the question asks for.",
        ),
        (_NAMES[operator], rf"not use {re.escape(operator)}", r"wrong operation|wrong sign|something else"),
    )


def _wrong_order(problem: Problem, side: Side) -> Fault:
    do = problem.row["do"]
    return Fault(
        (side.start, side.end),
        ("the numbers are in the wrong order",),
        (
            f"The numbers are in the wrong order: {do}.",
            f"It begins with {numbers.shown(side.numbers[0].value)}, which is to be taken away; {do}.",
            "The numbers are in the wrong order; begin with the one from which something is taken away.",
        ),
        (r"wrong order|reversed?|other way|begins? with",),
    )


def _wrong_result(problem: Problem, wrong: Side | None, number: Number, given: set[Fraction]) -> Fault:
    """Returns the fault of a result whose calculation is not wrong, or not written."""
    do, gold = problem.row["do"], Fraction(problem.answer)
    span = (wrong.start, wrong.end) if wrong else (number.start, number.end)
    written = numbers.shown(number.value)
    if number.value in given:
        return Fault(
            span,
            (f"{written} is only a number of the question", "it only repeats a number of the question"),
            (
                f"{written} is only one of the numbers of the question; {do}.",
                f"The attempt ends with {written}, which was given, and does not {do}.",
                "The attempt only repeats a number of the question; calculate with all of them.",
            ),
            (rf"(?<!\d){written}(?!\d)[^.]*\b(?:only|given|question|repeat)|repeat", _NO_RESULT),
        )
    large = number.value is None or number.value > gold
    size, other = ("large", "smaller") if large else ("small", "larger")
    return Fault(
        span,
        (f"{written} is not the result", "the result is wrong"),
        (
            f"{written} is too {size}; {do}.",
            f"The attempt says {written}, but the result must be {other}: {do}.",
            f"The result is too {size}; {do} and check it.",
            f"The result is too {size}; calculate with one equation.",
        ),
        (rf"(?<!\d){re.escape(written)}(?!\d)", _TOO_LARGE if large else _TOO_SMALL),
        (_TOO_SMALL if large else _TOO_LARGE,),
    )


def _wrong_unit(problem: Problem, text: str, number: Number) -> Fault | None:
    """Returns the fault of a result that counts something else than the question asks for."""
    behind = re.compile(r"\s{0,3}([^\W\d_]{1,20})\b").match(text, number.end)
    if behind is None or behind[1].lower() not in problem.row["other_units"]:
        return None
    unit, wrong = problem.row["unit"], behind[1].lower()
    return Fault(
        behind.span(1),
        (f"the question does not ask for {wrong}", "the unit is not the one asked for"),
        (
            f"The result is not a number of {wrong}; the question asks for {unit}.",
            f"It counts {wrong} instead of {unit}.",
            f"The unit {wrong} is wrong; answer in {unit}.",
        ),
        (rf"\b{wrong}\b",),
    )


def _written(side: Side) -> str:
    parts = [
        f"{operator} {numbers.shown(number.value)}".strip()
        for operator, number in zip(side.operators, side.numbers, strict=True)
    ]
    return " ".join(parts)
