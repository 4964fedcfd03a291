"""Finds the number of an answer that a reflection quotes: a critique such as `14 + 4 is not 20` points at the answer's 20."""

import re

import numpy as np
from jaxtyping import Integer

from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.records import Contexts, Rollouts
from amrsd_jax.tasks.verify import token_spans

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def quoted(question: str, answer: str, text: str) -> tuple[int, int] | None:
    """Returns where in an answer the number begins and ends that a text about it points at; None if it points at none.

    A text points at its last number that the answer has and the question lacks, because what the question gives is not in doubt,
    and means the first place where the answer has it (our choice).
    """
    given, there = (set(NUMBER.findall(part)) for part in (question, answer))
    named = [number for number in NUMBER.findall(text) if number in there and number not in given]
    return next((m.span() for m in NUMBER.finditer(answer) if m.group() == named[-1]), None) if named else None


def quoted_spans(tokenizer: Tokenizer, rollouts: Rollouts, contexts: Contexts) -> Integer[np.ndarray, "N 2"]:
    """Returns the tokens [start, end) of the number that each row's usable text points at; -1, -1 where there is none."""
    lengths = rollouts.mask.sum(axis=1).astype(int)
    tokens = [row[:length].tolist() for row, length in zip(rollouts.response, lengths, strict=True)]
    spans = [None] * len(tokens)
    for row in contexts.rows:
        spans[row] = quoted(rollouts.problems[row].question, rollouts.text[row], contexts.text[row])
    return token_spans(tokenizer, tokens, spans)
