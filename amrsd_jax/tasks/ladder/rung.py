"""Defines what a rung of the ladder is, and what it finds in a response."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amrsd_jax.problems import Problem


@dataclasses.dataclass(frozen=True)
class Exercise:
    """A drawn problem.

    Attributes:
      question: without the instruction about the form of the answer.
      answer, reference: the gold answer, and a worked solution that the rung accepts.
      content: what the question is about, whatever its wording, e.g. the unordered numbers of a sum. It decides the split.
      facts: what `Rung.review` reads; they become `Problem.row`.
    """

    question: str
    answer: str
    reference: str
    content: str
    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Fault:
    """The first thing that is wrong with a response.

    Attributes:
      span: its characters [start, end) in the text, or just behind its end where something is missing.
      messages: descriptions for the verdict, the most precise first; the last one names no number and no word of the response.
      critiques: wordings of a reflection, which say what is wrong and which direction is right; the last as in `messages`.
      marks: regular expressions; a text that matches one names something true of this fault.
      false_marks: the same, of something untrue.
    """

    span: tuple[int, int]
    messages: tuple[str, ...]
    critiques: tuple[str, ...]
    marks: tuple[str, ...]
    false_marks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Review:
    """What a rung finds in a response.

    Attributes:
      parsed: the answer as it was read, None if there is none.
      span: its characters [start, end), None if there is none.
      fault: what is wrong; None for a right response.
    """

    parsed: str | None
    span: tuple[int, int] | None
    fault: Fault | None

    def moved(self, offset: int) -> "Review":
        """Returns the review of a text that begins `offset` characters earlier."""
        span = self.span and (self.span[0] + offset, self.span[1] + offset)
        fault = self.fault
        if fault:
            fault = dataclasses.replace(fault, span=(fault.span[0] + offset, fault.span[1] + offset))
        return Review(self.parsed, span, fault)


class Rung:
    """A family of exercises with a verifier.

    Attributes:
      instruction: the end of each question: the form of the answer.
    """

    instruction: str

    def draw(self, generator: np.random.Generator) -> Exercise:
        """Returns a random exercise."""
        raise NotImplementedError

    def review(self, problem: Problem, text: str) -> Review:
        """Reads a response, or the end of a long one, leniently, and finds what is wrong with it. Any text is read."""
        raise NotImplementedError

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns wordings of a reflection on a right response, and marks as those of `Fault`."""
        raise NotImplementedError

    def states_answer(self, problem: Problem, text: str) -> bool:
        """Returns whether a text states the gold answer."""
        raise NotImplementedError


def choose(generator: np.random.Generator, options: Iterable) -> Any:
    """Returns one of the options, all of them equally likely."""
    options = tuple(options)
    return options[int(generator.integers(len(options)))]
