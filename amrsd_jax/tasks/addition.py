"""Generates additions of n-digit numbers with written carries, right to left. The demonstrator at times forgets a carry."""

import dataclasses
from typing import ClassVar

import numpy as np

from amrsd_jax.tasks.chain import Slip, check_range

_MAX_DIGITS = 18  # fit into a 64-bit integer


@dataclasses.dataclass(frozen=True)
class Addition:
    """Defines the chain `28167+20566` -> `7+6+0=13`, `6+6+1=13`, ..., `#### 48733`: digit + digit + carry, last digits first.

    Attributes:
      digits: n, digits of each number; with `spread` their median.
      slip_rate: probability that the demonstrator forgets a carry, at each step that has one.
      spread: standard deviation of log n, which gives responses a long tail of lengths; 0 makes every number n digits long.
    """

    words: ClassVar[tuple[str, ...]] = ("####",)

    digits: int = 5
    slip_rate: float = 0.7
    spread: float = 0.0

    def __post_init__(self):
        check_range("digits", self.digits, 1, _MAX_DIGITS)
        check_range("spread", self.spread, 0, 10)
        check_range("slip_rate", self.slip_rate, 0, 1)

    def draw(self, generator: np.random.Generator) -> str:
        digits = self.digits
        if self.spread:
            digits = int(np.clip(round(generator.lognormal(np.log(digits), self.spread)), 1, _MAX_DIGITS))
        low, high = 10 ** (digits - 1), 10**digits
        a, b = generator.integers(low, high, size=2)
        return f"{a}+{b}"

    def solve(self, question: str, slip: Slip) -> tuple[list[str], str]:
        a, b = question.split("+")
        lines, answer, carry = [], "", 0
        for step, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=True)):
            if carry and slip(step, self.slip_rate):
                carry = 0
            total = int(x) + int(y) + carry
            lines.append(f"{x}+{y}+{carry}={total}")
            answer, carry = f"{total % 10}{answer}", total // 10
        return lines, f"{carry or ''}{answer}"
