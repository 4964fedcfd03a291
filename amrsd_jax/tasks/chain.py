"""Makes embedded tasks: questions answered in written steps, with known true solution and first wrong step.

A *chain* draws questions and solves them step by step. `ChainTask` turns a chain into a task with an exact verifier, a
demonstrator that makes a systematic mistake (a *slip*) at some steps, and an oracle that finds the first wrong step of an
attempt. The warm-up trains on demonstrations, so that reinforcement learning has a mistake to remove, at a known place in
each response.
"""

import dataclasses
import zlib
from collections.abc import Callable, Collection
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from amrsd_jax import rng
from amrsd_jax.records import Problem, Verdict
from amrsd_jax.tasks.base import Task

ANSWER = "#### "
_DRAWS = 10_000  # attempts to draw a question of the wanted split; one question in ten is held out
Slip = Callable[[int, float], bool]  # (step, the demonstrator's slip rate there) -> whether the step goes wrong


@runtime_checkable
class Chain(Protocol):
    """A family of questions that are solved line by line.

    Attributes:
      words: parts of questions and lines that get a token of their own.
    """

    words: ClassVar[tuple[str, ...]]

    def draw(self, generator: np.random.Generator) -> str:
        """Returns a random question."""

    def solve(self, question: str, slip: Slip) -> tuple[list[str], str]:
        """Returns the lines and the final answer.

        Calls `slip` once at each step where a slip is possible, and continues from the state that results.
        """


@dataclasses.dataclass(frozen=True)
class ChainTask(Task):
    """A chain as a task. One question in ten, chosen by its hash, is held out, so that no test question is trained on.

    Attributes:
      chain: draws and solves the questions.
      seed: seed of the problems.
      family: see `Task`.
    """

    spans: ClassVar[tuple[str, ...]] = ("answer",)

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
        parsed, end = last.removeprefix(ANSWER), len(response.rstrip("\n"))
        right, span = parsed == problem.answer, (end - len(parsed), end)
        message = "correct" if right else "the answer is wrong"
        return Verdict(float(right), message, parsed, True, spans={"answer": span})

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        wrong = self._first_wrong_line(problem, response)
        if wrong is None:
            return None
        number, expected = wrong
        lines = response.split("\n")
        line = lines[number] if number < len(lines) else ""
        shorter = min(len(line), len(expected))  # where the error starts if one line begins with the other
        same = next((i for i in range(shorter) if line[i] != expected[i]), shorter)
        start = sum(len(earlier) + 1 for earlier in lines[:number])
        return start + same, start + max(len(line), same + 1)

    def write_reflection(self, problem: Problem, response: str, generator: np.random.Generator) -> str | None:
        """Returns the true line of `reflect`; None where that line is missing from the solution, or is the answer's."""
        line = self.reflect(problem, response, generator)[1]
        return None if not line or self.states_answer(problem, line) else line

    # -- the demonstrator and the oracle

    def training_problem(self, generator: np.random.Generator) -> Problem:
        """Draws a training question for the warm-up."""
        return self._draw(generator, "train", "warm-up")

    def attempt(self, problem: Problem, generator: np.random.Generator, right: Collection[int] = ()) -> str:
        """Returns a response of the demonstrator, in which the steps in `right` do not slip."""
        return render(
            *self.chain.solve(problem.question, lambda step, rate: generator.random() < rate and step not in right)
        )

    def solution(self, problem: Problem) -> str:
        """Returns the true solution."""
        return render(*self.chain.solve(problem.question, lambda step, rate: False))

    def pivotal_steps(self, problem: Problem) -> list[int]:
        """Returns the steps at which the demonstrator can slip."""
        steps = []
        self.chain.solve(problem.question, lambda step, rate: bool(steps.append(step)))
        return steps

    def reflect(self, problem: Problem, attempt: str, generator: np.random.Generator) -> tuple[int, str]:
        """Returns the number and the true line of the first wrong step, or of a random pivotal one if no step is wrong."""
        wrong = self._first_wrong_line(problem, attempt)
        if wrong is not None:
            return wrong
        lines = self.solution(problem).split("\n")
        pivotal = self.pivotal_steps(problem) or list(range(len(lines) - 1))
        step = int(generator.choice(pivotal))
        return step, lines[step]

    # -- helpers

    def _first_wrong_line(self, problem: Problem, response: str) -> tuple[int, str] | None:
        """Returns the number of the first line that differs from the solution, and the solution's line ("" after its end)."""
        lines, truth = response.rstrip("\n").split("\n"), self.solution(problem).split("\n")
        for number, expected in enumerate(truth):
            if number >= len(lines) or lines[number] != expected:
                return number, expected
        return None if len(lines) == len(truth) else (len(truth), "")

    def _draw(self, generator: np.random.Generator, split: str, name: str) -> Problem:
        for _ in range(_DRAWS):
            question = self.chain.draw(generator)
            held_out = zlib.crc32(question.encode()) % 10 == 0
            if held_out == (split == "test"):
                lines, answer = self.chain.solve(question, lambda step, rate: False)
                return Problem(name, question, answer, render(lines, answer))
        raise ValueError(f"{self.chain}: none of {_DRAWS} questions is in split {split!r}; expected a larger space")


def check_range(argument: str, value: float, least: float, most: float) -> None:
    """Raises ValueError unless an argument of a chain lies in [least, most]."""
    if not least <= value <= most:
        raise ValueError(f"task.args.{argument} = {value}: expected {least} to {most}")


def render(lines: list[str], answer: str) -> str:
    """Joins the steps, one per line, and the answer on the last line."""
    return "\n".join([*lines, f"{ANSWER}{answer}"])
