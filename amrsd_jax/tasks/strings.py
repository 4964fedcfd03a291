"""Generates edits of a short string, one per line. The demonstrator gets each kind of edit wrong in its own way.

A policy has to unlearn one mistake per kind of edit, so it learns more slowly than on addition.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from amrsd_jax.tasks.chain import Slip, check_range

_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# name -> (the edit, the edit that the demonstrator makes when it slips)
EDITS = {
    "rev": (lambda s: s[::-1], lambda s: s[0] + s[:0:-1]),
    "rot": (lambda s: s[1:] + s[0], lambda s: s[-1] + s[:-1]),
    "swap": (lambda s: s[-1] + s[1:-1] + s[0], lambda s: s[1] + s[0] + s[2:]),
}


@dataclasses.dataclass(frozen=True)
class Strings:
    """Defines the chain `fkqab rot rev` -> `rot kqabf`, `rev fbaqk`, `#### fbaqk`: reverse, rotate left, swap the ends.

    Attributes:
      letters: length of the string (distinct letters, at least 3).
      edits: number of edits.
      slip_rate: probability that the demonstrator gets an edit wrong.
    """

    words: ClassVar[tuple[str, ...]] = ("####", *EDITS)

    letters: int = 5
    edits: int = 4
    slip_rate: float = 0.4

    def __post_init__(self):
        check_range("letters", self.letters, 3, len(_LETTERS))
        check_range("edits", self.edits, 1, 100)
        check_range("slip_rate", self.slip_rate, 0, 1)

    def draw(self, generator: np.random.Generator) -> str:
        word = "".join(generator.permutation(list(_LETTERS))[: self.letters])
        return " ".join([word, *generator.choice(list(EDITS), size=self.edits)])

    def solve(self, question: str, slip: Slip) -> tuple[list[str], str]:
        word, *edits = question.split(" ")
        lines = []
        for step, name in enumerate(edits):
            right, wrong = EDITS[name]
            word = (wrong if slip(step, self.slip_rate) else right)(word)
            lines.append(f"{name} {word}")
        return lines, word
