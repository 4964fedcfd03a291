"""Hostile outputs: no verifier crashes, hangs or is talked into a reward, in either form."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks import grade
from tests.tasks.hostile import CHOICE_GOLD, MATH_GOLD, TOOL_GOLD, TOOL_NAMES, cases

PROMPT = "Documentation:\n" + "\n".join(f"{name}: Finds.\nParameters: {{}}\nOutput: Ships." for name in TOOL_NAMES)
GOLD = {"math": MATH_GOLD, "choice": CHOICE_GOLD, "tool": TOOL_GOLD}
OPTIONS = list("ABCD")


def lines(kind, outputs):
    return [json.dumps(dict(gold=GOLD[kind], response=o, options=OPTIONS, prompt=PROMPT)).encode() for o in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("math", marks=pytest.mark.slow), "choice", "tool"])
def test_five_hundred_hostile_outputs_earn_nothing(kind):
    outputs = cases(kind, 500)
    assert len(outputs) >= 500 and len(set(outputs)) > 400
    begin = time.monotonic()
    for form in grade.FORMS:
        rows = list(grade.grade(lines(kind, outputs), kind, form))
        assert [row["response"] for row in rows] == outputs
        wrong = [row for row in rows if row["reward"] or row["message"].startswith("error")]
        assert not [(row["response"][:200], row["message"]) for row in wrong]
        assert max(row["seconds"] for row in rows) < 60  # the deadline, however busy the machine
    assert time.monotonic() - begin < 300


@pytest.mark.slow
def test_huge_powers_are_verdicts_that_say_so():
    (row,) = grade.grade(lines("math", [r"\boxed{9^{9^{9^9}}}"]), "math", "row")
    assert row["reward"] == 0 and "timed out" in row["message"]


@pytest.mark.parametrize("kind", GOLD)
@settings(max_examples=60)
@given(data=st.data())
def test_any_text_gets_a_verdict(kind, data):
    marks = st.sampled_from(
        ["\\boxed{", "}", "<answer>", "</answer>", "Action:", "\nAction Input: {", '"a": 1', "A", "####", "$", "2"]
    )
    text = data.draw(st.lists(marks | st.text(max_size=4), max_size=12).map("".join))
    for form in grade.FORMS:
        row = grade.grade_line(lines(kind, [text])[0], kind, form)
        assert row["reward"] in (0.0, 1.0) and not row["message"].startswith("error")
        assert row["reward"] == 0 or kind == "choice"


@settings(max_examples=40)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_line_gets_a_row(line):
    for kind in GOLD:
        assert grade.grade_line(line, kind, "any")["reward"] == 0
