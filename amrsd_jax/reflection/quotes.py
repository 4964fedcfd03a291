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

    The numbers in doubt are those that the question lacks, and those directly behind `=`. A text points at its last number that
    is one of them; of several places, at the one before which the answer has the longest run of the numbers that the text has
    before it, the first of equals: with `15 + 5 is not 15` at the last 15 of `7 + 8 = 15. 15 + 5 = 15` (our choice).
    """
    places, numbers = list(NUMBER.finditer(answer)), NUMBER.findall(text)
    given, there = set(NUMBER.findall(question)), [place.group() for place in places]
    doubtful = [
        i for i, place in enumerate(places)
        if there[i] not in given or answer[: place.start()].rstrip().endswith("=")
    ]  # fmt: skip
    named = [i for i, number in enumerate(numbers) if any(number == there[j] for j in doubtful)]
    if not named:
        return None
    last = named[-1]
    # "8 is not 13: it must be 13" names it twice, and no 13 before it
    while last and numbers[last - 1] == numbers[last]:
        last -= 1
    candidates = [i for i in doubtful if there[i] == numbers[last]]
    return places[max(candidates, key=lambda i: _common_end(there[:i], numbers[:last]))].span()


def _common_end(a: list[str], b: list[str]) -> int:
    """Returns how many elements two lists have in common at their ends."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count


def quoted_spans(tokenizer: Tokenizer, rollouts: Rollouts, contexts: Contexts) -> Integer[np.ndarray, "N 2"]:
    """Returns the tokens [start, end) of the number that each row's usable text points at; -1, -1 where there is none.

    Texts that do not fit into the teacher's prompt are read too: the rules that read numbers show them to no teacher.
    """
    lengths = rollouts.mask.sum(axis=1).astype(int)
    tokens = [row[:length].tolist() for row, length in zip(rollouts.response, lengths, strict=True)]
    spans = [None] * len(tokens)
    for row in [row for row, status in enumerate(contexts.status) if status in ("ok", "no_room")]:
        spans[row] = quoted(rollouts.problems[row].question, rollouts.text[row], contexts.text[row])
    return token_spans(tokenizer, tokens, spans)
