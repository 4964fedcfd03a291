"""Generates chains of lookups in a hidden table of unrelated facts; the demonstrator has an error rate for each entry."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Integer

from amrsd_jax import rng
from amrsd_jax.tasks.chain import Slip, check_range


@dataclasses.dataclass(frozen=True)
class Tables:
    """Defines the chain `2:91417776` -> `2+9=5`, `5+1=8`, ..., `#### 58...`: each line looks up (last state, next digit).

    The answer lists all states, so that a wrong chain cannot end in the right answer. Our own design: a policy has to learn
    as many unrelated facts as the table has entries, where addition has one.

    Attributes:
      side: rows and columns of the table; entries are single digits.
      lookups: lines of a solution.
      low, high: bounds of the demonstrator's probability to get an entry right, which is drawn uniformly once per entry.
      table_seed: seed of the table, its wrong values and those probabilities, all of which are independent of the run's seed.
    """

    words: ClassVar[tuple[str, ...]] = ("####",)

    side: int = 10
    lookups: int = 8
    low: float = 0.35
    high: float = 0.85
    table_seed: int = 0

    def __post_init__(self):
        check_range("side", self.side, 2, 10)  # entries are digits, and a wrong one differs from the right one
        check_range("lookups", self.lookups, 1, 100)
        check_range("low", self.low, 0, 1)
        check_range("high", self.high, self.low, 1)
        check_range("table_seed", self.table_seed, 0, 2**32 - 1)

    def draw(self, generator: np.random.Generator) -> str:
        start, *others = generator.integers(0, self.side, size=1 + self.lookups)
        return f"{start}:{''.join(map(str, others))}"

    def solve(self, question: str, slip: Slip) -> tuple[list[str], str]:
        table = hidden_table(self)
        start, others = question.split(":")
        lines, state = [], int(start)
        for step, other in enumerate(map(int, others)):
            wrong = slip(step, float(table.slip_rate[state, other]))
            value = int((table.wrong if wrong else table.right)[state, other])
            lines.append(f"{state}+{other}={value}")
            state = value
        return lines, "".join(line[-1] for line in lines)


@dataclasses.dataclass(frozen=True)
class Table:
    """The hidden table and the demonstrator's errors, indexed by (state, digit).

    Attributes:
      right: the entries.
      wrong: the value that the demonstrator writes when it slips, always the same.
      slip_rate: probability that it slips.
    """

    right: Integer[np.ndarray, "n n"]
    wrong: Integer[np.ndarray, "n n"]
    slip_rate: Float[np.ndarray, "n n"]


@functools.lru_cache
def hidden_table(chain: Tables) -> Table:
    """Draws the table of a chain: a pure function of the chain's arguments."""
    generator, n = rng.host(chain.table_seed, "table"), chain.side
    right = generator.integers(0, n, size=(n, n))
    wrong = (right + generator.integers(1, n, size=(n, n))) % n
    return Table(right, wrong, 1 - generator.uniform(chain.low, chain.high, size=(n, n)))
