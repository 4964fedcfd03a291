"""Judges reflections with the ladder's knowledge of the attempt, to measure what a model writes; no run depends on it."""

import dataclasses
import re

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder.task import review, rung_of


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a reflection says about an attempt.

    Attributes:
      true: whether it names something true of this attempt, such as the wrong number, and nothing known to be untrue.
      false: whether it says something untrue, such as that a result is too large that is too small.
      copied: share of its sequences of three words that its prompt has too; a shorter text counts as one sequence.
    """

    true: bool
    false: bool
    copied: float


_CALLS_RIGHT = r"\b(?:answer|attempt|result|equation|student|it|this) (?:is|was) (?:right|correct|true)\b"
_CALLS_WRONG = (
    r"\b(?:answer|attempt|result|equation|student|it|this) (?:is|was) (?:wrong|incorrect|not (?:right|correct|true))\b"
)


def judge(problem: Problem, response: str, reflection: str, prompt: str) -> Judgement:
    """Returns the judgement of a reflection on a response.

    Args:
      prompt: everything that the writer of the reflection has read.
    """
    fault = review(problem, response).fault
    marks = fault.marks if fault else rung_of(problem).hints(problem, response)[1]
    false_marks = (*fault.false_marks, _CALLS_RIGHT) if fault else (_CALLS_WRONG,)
    false = _any(false_marks, reflection)
    return Judgement(_any(marks, reflection) and not false, false, copied(reflection, prompt))


def copied(text: str, prompt: str) -> float:
    """Returns the share of a text's sequences of three words that a prompt has too."""
    words, read = (re.findall(r"\w+|[+*/=-]", part.lower()) for part in (text, prompt))
    size = min(3, len(words))
    parts = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)] if words else []
    known = {tuple(read[i : i + size]) for i in range(len(read) - size + 1)}
    return sum(part in known for part in parts) / max(1, len(parts))


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
