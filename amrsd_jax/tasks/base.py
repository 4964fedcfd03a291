"""What a task is: problems by index, and a verifier. Everything else in the package knows tasks only through this."""

import dataclasses
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with a verifiable answer.

    Attributes:
      id: unique within the task's split.
      question: what the policy is asked (without instructions; those are the prompt template's).
      answer: the gold answer; the verifier's business, never shown to the policy.
      reference: a worked solution, if the data has one.
    """

    id: str
    question: str
    answer: str
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one response: the reward, what is wrong in words that do not give the answer, what was read.

    The message of a verifier that ran out of time says "timed out"; the collapse monitor counts them.
    """

    reward: float
    message: str
    parsed: str | None
    format_ok: bool

    @property
    def correct(self) -> bool:
        return self.reward >= 1.0


@runtime_checkable
class Task(Protocol):
    """Problems and their verifier.

    Attributes:
      family: which prompt templates the task uses (`reflection.prompts`).
    """

    family: str

    def problem(self, split: str, index: int) -> Problem:
        """The index-th problem of "train" or "test": a pure function, so data order needs no saved state."""

    def size(self, split: str) -> int | None:
        """Number of distinct problems, None if they never run out."""

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judges a response; never raises on a strange one."""

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        """Characters [start, end) of the first wrong step, from where it departs from the right one; None if there is none,
        or the task does not know. A response that stops too early errs just behind its end."""
