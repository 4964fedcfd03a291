"""What a task is: problems by index, and a verifier. Everything else in the package knows tasks only through this."""

import dataclasses
from collections.abc import Mapping
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
    """A verifier's judgement of one response.

    Attributes:
      reward: 1 for a right answer.
      message: what is wrong, in words that do not give the answer; contains "timed out" where the verifier ran out of
        time, which the collapse monitor counts.
      parsed: what was read, None if nothing was.
      format_ok: whether the answer stood in the form that was asked for.
      scores: further scores by name, logged beside the reward (a lenient reading, a published grader).
    """

    reward: float
    message: str
    parsed: str | None
    format_ok: bool
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

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
        """The index-th problem of "train", "validation" or "test": a pure function, so data order needs no saved state."""

    def size(self, split: str) -> int | None:
        """Number of distinct problems, None if they never run out."""

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judges a response; never raises on a strange one."""

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        """Characters [start, end) of the first wrong step, from where it departs from the right one; None if there is none,
        or the task does not know. A response that stops too early errs just behind its end."""
