"""Reproduces the exact-match graders of SDPO (arXiv 2601.20802), for comparison with published numbers.

Their known defects are reproduced too: the tool grader merges the arguments of all calls into one object, cuts a nested
object short, and accepts only names of word characters, so that it rejects two of its own 68 gold answers.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

_ACTION = re.compile(r"Action:\s*(\w+)")
_INPUT = re.compile(r"Action Input:\s*(?=\{)")


def choice_score(gold: str, response: str) -> float:
    """Returns 1 if the content of the last answer tag, or without tags the whole text, is the gold letter, else 0."""
    return float(response.rpartition("<answer>")[2].partition("</answer>")[0].strip() == gold.strip())


def tool_score(gold: Sequence[tuple[str, dict]], response: str) -> float:
    """Returns 1 if the tool names, in any order, and the arguments, merged into one object, equal the gold ones, else 0.

    Args:
      gold: (name, arguments) of each gold call.
      response: the whole reply.
    """
    names, arguments = Counter(name for name, _ in gold), _merged(arguments for _, arguments in gold)
    return float(Counter(_ACTION.findall(response)) == names and _merged(_inputs(response)) == arguments)


def _inputs(response: str) -> Iterator[str]:
    """Yields what follows each `Action Input:`, from its first brace to the next closing one, in linear time."""
    end = 0
    for given in _INPUT.finditer(response):
        if given.start() >= end:
            end = response.find("}", given.end()) + 1
            if not end:
                return
            yield response[given.end() : end]


def _merged(texts) -> dict:
    """Merges JSON objects, later ones over earlier ones, and skips what is not JSON."""
    merged = {}
    for text in texts:
        try:
            value = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            continue
        merged |= value if isinstance(value, dict) else {}
    return merged
