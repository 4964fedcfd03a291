"""Rungs of calculations in words: one-step word problems with names and units, and conversions of units."""

import numpy as np

from amrsd_jax.tasks.ladder.arithmetic import Calculation, result
from amrsd_jax.tasks.ladder.rung import Exercise, choose

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo")
_THINGS = ("apples", "pens", "books", "coins", "eggs", "cards", "stamps", "shells", "cookies", "balls")
_GAINS = (
    "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things} and finds {b} more. How many {things} does {name} have in total?",
    "There are {a} {things} in a box. {name} puts in {b} more. How many {things} are in the box?",
)
_LOSSES = (
    "{name} has {a} {things} and gives away {b}. How many {things} are left?",
    "{name} has {a} {things} and loses {b}. How many {things} does {name} have now?",
    "There are {a} {things} in a box. {name} takes out {b}. How many {things} are left?",
)


class Stories(Calculation):
    """Word problems of one step: what is gained or lost, of numbers up to 18. Numbers and operation decide the split."""

    instruction: str = "Answer with one equation."

    def draw(self, generator: np.random.Generator) -> Exercise:
        while True:
            operator = choose(generator, "+-")
            a, b = int(generator.integers(3, 10 if operator == "+" else 19)), int(generator.integers(2, 10))
            terms = [("+", a), (operator, b)]
            if result(terms) > 1 and result(terms) not in (a, b):
                break
        things = choose(generator, _THINGS)
        story = choose(generator, _GAINS if operator == "+" else _LOSSES)
        question = story.format(name=choose(generator, _NAMES), a=a, b=b, things=things)
        do = f"add {b} {things} to {a}" if operator == "+" else f"subtract {b} {things} from {a}"
        content = " ".join(sorted(f"{sign}{number}" for sign, number in terms))
        others = tuple(thing for thing in _THINGS if thing != things)
        return self.exercise(question, terms, content, do, unit=things, other_units=others)


_UNITS = (  # larger unit, smaller unit, how many of it
    ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7), ("years", "months", 12),
    ("meters", "centimeters", 100), ("kilometers", "meters", 1000), ("feet", "inches", 12), ("yards", "feet", 3),
)  # fmt: skip
_CONVERSIONS = (
    "How many {small} are in {n} {large}?",
    "How many {small} are {n} {large}?",
    "Convert {n} {large} to {small}.",
)


class Units(Calculation):
    """Conversions of 2 to 9 of a unit to a smaller one. Both units and the number decide the split."""

    instruction: str = "Answer with one equation."

    def draw(self, generator: np.random.Generator) -> Exercise:
        large, small, factor = choose(generator, _UNITS)
        n = int(generator.integers(2, 10))
        question = choose(generator, _CONVERSIONS).format(small=small, n=n, large=large)
        others = {unit for units in _UNITS for unit in units[:2]} - {small}
        do = f"multiply {n} {large} by {factor} {small}"
        return self.exercise(
            question,
            [("*", n), ("*", factor)],
            f"{n} {large} in {small}",
            do,
            unit=small,
            other_units=tuple(sorted(others)),
        )
