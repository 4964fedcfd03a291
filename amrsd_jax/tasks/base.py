"""Defines the interface of a task, through which the rest of the package uses it: problems by index, and a verifier."""

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks import leaks


@runtime_checkable
class Task(Protocol):
    """Problems and their verifier. Subclass it to inherit the defaults.

    Attributes:
      family: selects the prompt templates (`reflection.prompts`).
      spans, scores: names of the verdicts' spans and scores that become arrays of `Rollouts.extras`, for credit rules. They are
        declared, so that a rule that uses an unknown name is refused before any compute.
    """

    family: str
    spans: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ()

    def problem(self, split: str, index: int) -> Problem:
        """Returns problem `index` of "train", "validation" or "test": a pure function, so data order needs no saved state."""

    def size(self, split: str) -> int | None:
        """Returns the number of distinct problems, None if they never run out."""

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judges a response. Never raises, whatever the response holds."""

    def family_of(self, problem: Problem) -> str:
        """Returns the family of a problem, which is the task's but in a mixture."""
        return self.family

    def states_answer(self, problem: Problem, text: str) -> bool:
        """Returns whether a text, such as a reflection, states the gold answer, so that it must not be shown."""
        return leaks.states_answer(text, problem.answer)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        """Returns the characters [start, end) of the first wrong step, from where it departs from the right one.

        None if no step is wrong, or if the task cannot tell. For a response that stops too early, the range begins at or
        just after its end.
        """
        return None

    def write_reflection(self, problem: Problem, response: str, generator: np.random.Generator) -> str | None:
        """Returns a true reflection on a response, as text without tags; None if the task cannot write one.

        About a failure it says what is wrong with this response and which direction is right, about a success what was
        decisive. It never states the gold answer, as `states_answer` tells. The generator selects the wording.
        """
        return None
