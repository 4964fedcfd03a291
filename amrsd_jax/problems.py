"""The records of a problem and of a verifier's verdict on a response to it.

They belong to `records`, but have a module of their own because verifiers run without JAX or NumPy (`tasks.grade`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with a verifiable answer.

    Attributes:
      id: unique within the task's split.
      question: the text given to the policy, without the instructions of the prompt template.
      answer: the gold answer. Only the verifier uses it, unless a credit rule's context shows it to the teacher.
      reference: a worked solution, None if the data has none.
      row: the whole row of the data set, for verifiers; {} where there is none.
      messages: (role, content) of each message of the prompt where the data set gives a conversation, whose last user message
        is the question; () where the prompt template asks it.
      data_set: name of its set in a mixture; "" for other tasks.
    """

    id: str
    question: str
    answer: str
    reference: str | None = None
    row: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    messages: tuple[tuple[str, str], ...] = ()
    data_set: str = ""

    @property
    def prompt_text(self) -> str:
        """Everything that the policy is told: the contents of all messages, or the question."""
        return "\n".join(content for _, content in self.messages) or self.question


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one response.

    Attributes:
      reward: 1 for a right answer.
      message: says what is wrong without giving the answer away. Where the verifier ran out of time it says "timed out", before
        any colon, semicolon or bracket, behind which it may quote the response.
      parsed: the answer as it was read, None if none was found.
      format_ok: whether the answer had the requested form.
      scores: further scores by name, logged beside the reward, e.g. of a more lenient verifier.
      spans: character ranges [start, end) of the response by name, e.g. of the answer.
    """

    reward: float
    message: str
    parsed: str | None
    format_ok: bool
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    spans: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def timed_out(self) -> bool:
        """Whether the verifier ran out of time."""
        return "timed out" in re.split("[:;(]", self.message, maxsplit=1)[0]

    @property
    def correct(self) -> bool:
        """Whether the reward is that of a right answer."""
        return self.reward >= 1.0
