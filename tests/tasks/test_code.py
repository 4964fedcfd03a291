"""The code task: rewards, messages, rows of real forms, and what a reflection must not say."""

import json

import pytest

from amrsd_jax.tasks import code, grade, registry, sandbox
from amrsd_jax.tasks.data_report import lines, report

MBPP = {
    "text": "Write a function to add two numbers.", "code": "def add(a, b):\r\n    return sum([a, b], start=0)", "task_id": 1,
    "test_setup_code": "", "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(-1, 1) == 0"],
}  # fmt: skip
HUMANEVAL = {
    "task_id": "HumanEval/0", "prompt": 'from math import pi\n\ndef area(r):\n    """The area of a circle."""\n',
    "entry_point": "area", "canonical_solution": "    return pi * r * r\n",
    "test": "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n    assert candidate(0) == 0",
}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    try:
        sandbox.choose()
    except ValueError as error:
        pytest.skip(str(error))

    def made(row=MBPP, **args):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in (row if isinstance(row, list) else [row])))
        return registry.make("code", dict(train=str(path), test=str(path), seconds=2) | args, seed=0)

    return made


def judged(task, reply):
    return task.verify(task.problem("test", 0), reply)


WRONG = "```python\ndef add(a, b):\n    return abs(a) + b\n```"  # the last test fails


def test_the_reward_is_the_share_of_tests_or_all_of_them(make):
    verdict = judged(make(), WRONG)
    assert verdict.reward == verdict.scores["tests"] == pytest.approx(2 / 3) and not verdict.correct
    assert verdict.message == "wrong result; input add(-1, 1); expected 0; got 2; 2 of 3 tests passed"
    verdict = judged(make(partial=False), WRONG)
    assert verdict.reward == 0 and verdict.scores["tests"] == pytest.approx(2 / 3)
    task = make()
    assert judged(task, task.gold_response(task.problem("test", 0))).correct
    assert judged(task, "I give up.").message == "no program was found"


def test_a_second_block_may_show_how_the_function_is_used(make):
    usage = "\nExample usage:\n```python\nprint({}(1))\n```\nprints\n```\n3.14\n```"
    right = "```python\ndef add(a, b):\n    return a + b\n```"
    assert judged(make(), right + usage.format("add")).correct
    assert judged(make(), WRONG + usage.format("add")).scores["tests"] == pytest.approx(2 / 3)
    right = "```python\nfrom math import pi\ndef area(r):\n    return pi * r * r\n```"
    assert judged(make(HUMANEVAL, starter="prompt"), right + usage.format("area")).correct


@pytest.mark.parametrize(
    "show, told, hidden",
    [
        ("all", ["(-1, 1)", "expected 0", "got 2"], []),
        ("inputs", ["(-1, 1)", "got 2"], ["expected"]),
        ("none", ["wrong result"], ["-1", "expected", "got"]),
    ],
)
def test_a_message_says_of_hidden_tests_what_the_config_allows(make, show, told, hidden):
    message = judged(make(show_tests=show), WRONG).message
    assert all(text in message for text in told) and not any(text in message for text in hidden)


def test_an_error_names_the_line_and_says_no_input_where_tests_are_hidden(make):
    reply = "```python\ndef add(a, b):\n    return {}[a]\n```"
    assert (
        judged(make(), reply).message
        == "KeyError: 1 (line 2, `return {}[a]`); input add(1, 2); expected 3; 0 of 3 tests passed"
    )
    assert judged(make(show_tests="none"), reply).message == "KeyError (line 2, `return {}[a]`); 0 of 3 tests passed"


def test_a_function_that_the_prompt_begins_is_completed(make):
    task = make(HUMANEVAL, starter="prompt")
    assert "```python\nfrom math import pi" in task.problem("test", 0).question
    for reply in (
        "    return pi * r * r",
        "```python\nreturn pi * r * r\n```",
        "```python\ndef area(r):\n    return pi * r ** 2\n```",
        task.gold_response(task.problem("test", 0)),
    ):
        assert judged(task, reply).correct
    assert judged(task, "    return 3 * r").scores["tests"] == 0.5


def test_a_leetcode_class_with_typing_that_it_does_not_import(make):
    row = {
        "question_content": "Add.", "starter_code": "class Solution:\n    def add(self, a: List[int]) -> int:\n        ",
        "metadata": '{"func_name": "add"}',
        "private_test_cases": json.dumps([{"input": "[1, 2]", "output": "3", "testtype": "functional"}]),
    }  # fmt: skip
    task = make(row, answer="")
    assert (
        "Begin with:\n```python\nclass Solution" in task.problem("test", 0).question
        and task.judge.gold_response is None
    )
    assert "no gold answers" in lines(report(task, lambda problem: [1], 8))[1]
    assert judged(
        task, "```python\nclass Solution:\n    def add(self, a: List[int]) -> int:\n        return sum(a)\n```"
    ).correct


def test_a_question_shows_as_many_tests_as_asked_for(make):
    assert "assert" not in make().problem("test", 0).question
    question = make(examples=2).problem("test", 0).question
    assert "assert add(2, 2) == 4" in question and "add(-1, 1)" not in question


def test_rows_with_faulty_tests_are_refused_or_skipped(make):
    bad = MBPP | {"test_list": ["assert add(1,"]}
    with pytest.raises(ValueError, match="rows-2: tests are not Python"):
        make([MBPP, bad])
    task = make([MBPP, bad], unanswered="skip")
    assert (task.size("test"), task.skipped("test")) == (1, ("rows-2",))


@pytest.mark.parametrize(
    "args, message",
    [
        ({"show_tests": "some"}, "show_tests = 'some': .*expected one of all, inputs, none"),
        ({"seconds": 0}, "seconds = 0: expected 1 to 600"),
        ({"options": "choices"}, "options = 'choices': programs have none"),
        ({"starters": "x"}, "did you mean 'starter'"),
    ],
)
def test_wrong_arguments_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        registry.check("code", dict(train="a", test="b") | args)


def test_without_a_sandbox_a_task_is_refused_before_any_compute(make, monkeypatch):
    monkeypatch.setattr(sandbox.launch, "_bubblewrap", lambda: "bwrap is not installed")
    with pytest.raises(ValueError, match="unsafe = False: there is no sandbox"):
        make()
    task = make(unsafe=True)
    assert judged(task, WRONG).scores["tests"] == pytest.approx(2 / 3)
    assert lines(report(task, lambda problem: [1], 8))[0].startswith("programs run in NO SANDBOX")


def test_a_reflection_that_writes_the_program_states_the_answer(make):
    task = make()
    problem = task.problem("test", 0)
    for text in ("```\nx\n```", "Use\ndef add(a, b):\n  ...", "return sum( [a, b], start = 0 ) is enough"):
        assert task.states_answer(problem, text)
    for text in ("Do not drop the sign of the first number.", "sum the two"):
        assert not task.states_answer(problem, text)


def test_a_long_text_is_searched_in_linear_time(make):
    task = make()
    assert not task.states_answer(task.problem("test", 0), "def " + "a" * 99_000)  # minutes in quadratic time


def test_the_grading_command_grades_programs(make):
    make()
    rows = [MBPP | {"response": WRONG}, HUMANEVAL | {"response": "    return pi * r * r"}, {"response": "x = 1"}]
    graded = list(grade.grade([json.dumps(row).encode() for row in rows], "code"))
    assert [row["reward"] for row in graded] == [0, 1, 0]
    assert graded[2]["message"].startswith("error: ValueError: tests are 'None'")


def test_columns_of_a_row_may_be_nested():
    assert code.suite({"tests": {"inputs": ["1"], "outputs": ["2"]}}, code.COLUMNS)["kind"] == "script"
