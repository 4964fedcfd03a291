"""Embedded tasks: a question answered in written steps, where the true solution, and so the first wrong step, is known.

A *chain* says how its question is drawn and how it is solved; this file turns any chain into a task with an exact
verifier, a demonstrator with a planted habit (it slips at some steps), and the reflections that a perfect reader of an
attempt would write. The warm-up learns from these; reinforcement learning then has a habit to remove and a ground truth
of where it shows.
"""

import dataclasses
import zlib
from collections.abc import Callable, Collection
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from amrsd_jax import rng
from amrsd_jax.tasks.base import Problem, Verdict

ANSWER = "#### "
_DRAWS = 10_000  # of a question for a split; one in ten is held out
Slip = Callable[[int, float], bool]  # (step, the demonstrator's slip rate there) -> whether this step goes wrong


@runtime_checkable
class Chain(Protocol):
    """A family of questions solved line by line."""

    words: ClassVar[tuple[str, ...]]  # pieces of its questions and lines that deserve a token of their own

    def draw(self, generator: np.random.Generator) -> str:
        """A random question."""

    def solve(self, question: str, slip: Slip) -> tuple[list[str], str]:
        """Lines and final answer. Asks `slip` once at each step where the habit can act, and goes on from its own state."""


@dataclasses.dataclass(frozen=True)
class ChainTask:
    """A chain as a task. One problem in ten (by a hash of the question) is held out: no test question is ever trained on."""

    chain: Chain
    seed: int
    family: str = "chain"

    # -- the task

    def problem(self, split: str, index: int) -> Problem:
        return self._draw(rng.host(self.seed, f"problems/{split}", index), split, f"{split}-{index}")

    def size(self, split: str) -> int | None:
        return None

    def verify(self, problem: Problem, response: str) -> Verdict:
        last = response.rstrip("\n").rsplit("\n", 1)[-1]
        if not last.startswith(ANSWER):
            return Verdict(0.0, f"the last line is not '{ANSWER}answer'", None, False)
        parsed = last.removeprefix(ANSWER)
        if parsed != problem.answer:
            return Verdict(0.0, "the answer is wrong", parsed, True)
        return Verdict(1.0, "correct", parsed, True)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        found = self._first_wrong_line(problem, response)
        if found is None:
            return None
        number, wanted = found
        lines = response.split("\n")
        line = lines[number] if number < len(lines) else ""
        same = next((i for i, (a, b) in enumerate(zip(line, wanted, strict=False)) if a != b), None)
        if same is None:  # one is the beginning of the other: the error is where the shorter ends
            same = min(len(line), len(wanted))
        start = sum(len(earlier) + 1 for earlier in lines[:number])
        return start + same, start + max(len(line), same + 1)

    # -- the demonstrator and the perfect reader

    def training_problem(self, generator: np.random.Generator) -> Problem:
        """A training question for the warm-up."""
        return self._draw(generator, "train", "warm-up")

    def attempt(self, problem: Problem, generator: np.random.Generator, right: Collection[int | None] = ()) -> str:
        """What the demonstrator writes; steps in `right` are forced to be right."""

        def slip(step, rate):
            return generator.random() < rate and step not in right

        return render(*self.chain.solve(problem.question, slip))

    def solution(self, problem: Problem) -> str:
        """The true solution."""
        return render(*self.chain.solve(problem.question, lambda step, rate: False))

    def pivotal_steps(self, problem: Problem) -> list[int]:
        """Steps at which the demonstrator's habit can act."""
        asked = []
        self.chain.solve(problem.question, lambda step, rate: bool(asked.append(step)))
        return asked

    def reflect(self, problem: Problem, attempt: str, generator: np.random.Generator) -> tuple[int | None, str]:
        """(step, its true line) that a perfect reader names: the first wrong one, or a pivotal one if none is wrong."""
        found = self._first_wrong_line(problem, attempt)
        if found is not None:
            return found
        lines = self.solution(problem).split("\n")
        pivotal = self.pivotal_steps(problem) or list(range(len(lines) - 1))
        step = int(generator.choice(pivotal))
        return step, lines[step]

    # -- inside

    def _first_wrong_line(self, problem: Problem, response: str) -> tuple[int, str] | None:
        lines, truth = response.rstrip("\n").split("\n"), self.solution(problem).split("\n")
        for number, wanted in enumerate(truth):
            if number >= len(lines) or lines[number] != wanted:
                return number, wanted
        return None if len(lines) == len(truth) else (len(truth), "")

    def _draw(self, generator: np.random.Generator, split: str, name: str) -> Problem:
        for _ in range(_DRAWS):
            question = self.chain.draw(generator)
            held_out = zlib.crc32(question.encode()) % 10 == 0
            if held_out == (split == "test"):
                lines, answer = self.chain.solve(question, lambda step, rate: False)
                return Problem(name, question, answer, render(lines, answer))
        raise ValueError(f"{self.chain}: none of {_DRAWS} questions drawn is for {split!r}; it has too few questions")


def check_range(argument: str, value: float, least: float, most: float) -> None:
    """Raises ValueError unless an argument of a chain lies in its range."""
    if not least <= value <= most:
        raise ValueError(f"task.args.{argument} = {value}: expected {least} to {most}")


def render(lines: list[str], answer: str) -> str:
    """Steps, one a line, and the answer on the last."""
    return "\n".join([*lines, f"{ANSWER}{answer}"])
