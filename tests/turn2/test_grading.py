"""Published cases of grading: what `python -m amrsd_jax.tasks.grade` gives for a case's gold answer and response."""

import json

import pytest

from amrsd_jax.tasks import grade
from tests.turn2 import cases

KINDS = (
    "math: dollar signs of money read as formula delimiters",
    "math: equal answers refused",
    "math: how often a value occurs in a list",
    "math: percent taken in both directions",
    "math: separate numbers run together",
    "math: time of day and compound units",
    "math: words of capital letters taken for products",
    "math: words or signs that change what is said",
    "choice: plain statements of the letter not read by form any",
    "thought: what stands only in a thought counts as the answer",
    "tools: a call without arguments, and a number as text",
)


@pytest.mark.parametrize("case", cases(KINDS))
def test_the_grader_gives_the_right_reward(case):
    given = case["input"]
    (row,) = grade.grade([json.dumps(given).encode()], given["grader"], given["form"])
    assert not row["message"].startswith("error")
    assert row["reward"] == case["expected"]["reward"], (row["parsed"], row["message"])
