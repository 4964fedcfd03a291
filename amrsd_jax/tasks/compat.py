"""Graders as published, so that numbers can be compared: the exact matches of SDPO (arXiv 2601.20802) and its predecessor.

Their known defects are part of them: the tool grader merges the arguments of all calls into one object, cuts a nested
object short, and takes no name that is not of word characters, so that it refuses two of its own 68 gold answers.
"""

import json
import re
from collections import Counter

_ACTION = re.compile(r"Action:\s*(\w+)")
_INPUT = re.compile(r"Action Input:\s*(\{.*?\})", re.DOTALL)


def choice_score(gold: str, response: str) -> float:
    """1 if what follows the last `<answer>`, up to the next `</answer>`, is the gold letter; without tags, the whole text."""
    return float(response.rpartition("<answer>")[2].partition("</answer>")[0].strip() == gold.strip())


def tool_score(gold: str, response: str) -> float:
    """1 if the names are those of the gold calls, in any order, and so are all arguments, merged into one object."""
    calls = json.loads(gold)
    names, wanted = Counter(call["Action"] for call in calls), _merged(call["Action_Input"] for call in calls)
    inputs = (m[1] for m in _INPUT.finditer(response))
    return float(Counter(_ACTION.findall(response)) == names and _merged(inputs) == wanted)


def _merged(texts) -> dict:
    """JSON objects as one, the later ones over the earlier; what is not JSON is passed over."""
    whole = {}
    for text in texts:
        try:
            value = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            continue
        whole |= value if isinstance(value, dict) else {}
    return whole
