"""Published cases of reflections that name the right option."""

import pytest

from amrsd_jax.problems import Problem
from amrsd_jax.reflection.parse import parse
from amrsd_jax.tasks.leaks import states_answer
from amrsd_jax.tasks.rows import RowTask
from tests.turn2 import cases

KINDS = ("leak of a letter",)


@pytest.mark.parametrize("case", cases(KINDS))
def test_leaks(case):
    text, answer = case["input"]["reflection"], case["input"]["answer"]
    status = parse(
        f"<critique>{text}</critique>",
        "critique",
        finished=True,
        states_answer=lambda text: states_answer(text, answer),
    )[1]
    assert (status if isinstance(case["expected"], str) else status == "leak") == case["expected"]
    task, problem = RowTask(family="choice"), Problem("1", "Which?\nA: red\nB: green\nC: blue\nD: grey", answer)
    assert task.states_answer(problem, text) == (status == "leak")
