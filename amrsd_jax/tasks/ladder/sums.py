"""Rungs of plain calculations: sums of two digits, sums and differences of two-digit numbers, and several steps."""

import numpy as np

from amrsd_jax.tasks.ladder.arithmetic import Calculation, expression, result
from amrsd_jax.tasks.ladder.rung import Exercise, choose

_SUMS = ("What is {a} + {b}?", "What is {a} plus {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?")
_DIFFERENCES = ("What is {a} - {b}?", "What is {a} minus {b}?", "Subtract {b} from {a}.", "Take {b} away from {a}.")


class Sums(Calculation):
    """Sums of two digits from 2 to 9, asked in four ways. The unordered pair of digits decides the split."""

    instruction: str = "Answer with one equation."

    def draw(self, generator: np.random.Generator) -> Exercise:
        a, b = (int(digit) for digit in generator.integers(2, 10, size=2))
        return _two(self, generator, a, "+", b)


class TwoDigits(Calculation):
    """Sums and differences of two-digit numbers; all of them lie between 10 and 99."""

    instruction: str = "Answer with one equation."

    def draw(self, generator: np.random.Generator) -> Exercise:
        while True:
            a, b = (int(number) for number in generator.integers(10, 100, size=2))
            operator = choose(generator, "+-")
            if 10 <= result([("+", a), (operator, b)]) <= 99 and result([("+", a), (operator, b)]) not in (a, b):
                return _two(self, generator, a, operator, b)


class Steps(Calculation):
    """Three numbers added and subtracted, one equation a step: `12 + 7 = 19. 19 - 5 = 14.`"""

    instruction: str = "Write two equations."

    def draw(self, generator: np.random.Generator) -> Exercise:
        while True:
            a, b, c = (int(number) for number in generator.integers(2, 10, size=3))
            terms = [("+", a), (choose(generator, "+-"), b), (choose(generator, "+-"), c)]
            values = [result(terms[:2]), result(terms)]
            if len({a, b, c, *values}) == 5 and min(values) > 2:
                return self.exercise(
                    f"What is {expression(terms)}?",
                    terms,
                    _content(terms),
                    f"calculate {expression(terms)} in two steps",
                )

    def reference(self, terms: list[tuple[str, int]]) -> str:
        first = result(terms[:2])
        operator, last = terms[2]
        return f"{expression(terms[:2])} = {first}. {first} {operator} {last} = {result(terms)}."


def _two(rung: Calculation, generator: np.random.Generator, a: int, operator: str, b: int) -> Exercise:
    question = choose(generator, _SUMS if operator == "+" else _DIFFERENCES).format(a=a, b=b)
    do = f"add {a} and {b}" if operator == "+" else f"subtract {b} from {a}"
    terms = [("+", a), (operator, b)]
    return rung.exercise(question, terms, _content(terms), do)


def _content(terms: list[tuple[str, int]]) -> str:
    """Returns a calculation without the order of its terms."""
    return " ".join(sorted(f"{operator}{number}" for operator, number in terms))
