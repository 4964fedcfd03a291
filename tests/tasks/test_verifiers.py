"""A verifier of the user's own: one file and one config field."""

import importlib
import json
import time

import numpy as np
import pytest

from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.problems import Problem
from amrsd_jax.tasks import registry
from amrsd_jax.tasks.selftest import selftest
from amrsd_jax.tasks.verifiers import load
from amrsd_jax.tasks.verify import extras

IMPORT = "from amrsd_jax.problems import Verdict"
VERIFIER = '''
from amrsd_jax.problems import Verdict

SPANS, SCORES = ("number",), ("distance",)


def verify(problem, response):
    """Accepts a number within the row's own tolerance."""
    start = response.rindex(" ") + 1
    distance = abs(float(response[start:]) - float(problem.answer))
    right = distance <= problem.row["tolerance"]
    spans = {"number": (start, len(response))}
    return Verdict(float(right), "correct" if right else "too far", response[start:], True, {"distance": distance}, spans)


def number(problem, response):
    return 0.5


def gold_response(problem):
    return f"it is {problem.answer}"
'''


@pytest.fixture
def task(tmp_path):
    (tmp_path / "mine.py").write_text(VERIFIER)
    rows = [{"question": f"q{i}", "answer": str(i), "tolerance": 0.25 * i} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = dict(train="rows.jsonl", test="rows.jsonl", folder=str(tmp_path), verifier=f"{tmp_path}/mine.py:verify")
    return registry.make("rows", args, seed=0)


def test_it_judges_with_the_row_at_hand(task):
    first, second, third = task.rows("test")
    assert [task.verify(problem, "it is 1.5").reward for problem in (first, second, third)] == [0, 0, 1]
    assert task.verify(second, task.gold_response(second)).correct


def test_its_spans_and_scores_are_extras_of_the_rollouts(task):
    assert registry.extras("rows", dict(verifier=task.verifier)) == (("number",), ("distance",))
    problem, tokenizer = task.rows("test")[1], embedded_tokenizer(["it", " is", " nothing"])
    responses = ["it is 1.5", "it is nothing"]
    tokens = [tokenizer.encode(response, add_special_tokens=False) for response in responses]
    arrays = extras(task, tokenizer, tokens, [task.verify(problem, response) for response in responses])
    (start, end), absent = arrays["number"].tolist()
    assert tokenizer.decode(tokens[0][start:end]).strip() == "1.5" and absent == [-1, -1]
    assert arrays["distance"][0] == 0.5 and np.isnan(arrays["distance"][1])


def test_an_error_of_the_verifier_is_a_verdict(task):
    verdict = task.verify(task.rows("test")[0], "nothing")
    assert verdict.reward == 0 and "ValueError" in verdict.message


def test_a_number_is_a_reward(tmp_path):
    (tmp_path / "mine.py").write_text(VERIFIER)
    verdict = load(f"{tmp_path}/mine.py:number").verify(Problem("1", "q", "1"), "a")
    assert verdict.reward == 0.5 and not verdict.correct


def test_a_verifier_that_returns_no_number_gives_a_verdict(tmp_path):
    (tmp_path / "mine.py").write_text("def nothing(problem, response): ...\n")
    verdict = load(f"{tmp_path}/mine.py:nothing").verify(Problem("1", "q", "1"), "a")
    assert verdict.reward == 0 and "TypeError" in verdict.message


@pytest.mark.parametrize(
    "place", ["mine", "no_such_module:verify", "{folder}/absent.py:verify", "{folder}/mine.py:verfy"]
)
def test_a_place_without_a_verifier_is_named(tmp_path, place):
    (tmp_path / "mine.py").write_text(VERIFIER)
    place = place.format(folder=tmp_path)
    with pytest.raises(ValueError, match="verifier") as error:
        registry.check("rows", dict(train="x", test="x", verifier=place))
    assert place in str(error.value)


@pytest.mark.parametrize(
    "returned",
    [
        "exit(0)",
        "float('nan')",
        "1e39",
        "Verdict(float('inf'), 'right', None, True)",
        "Verdict(None, 'right', None, True)",
        "Verdict(1.0, 'right', None, True, scores={'distance': 'far'})",
        "Verdict(1.0, 'right', None, True, spans={'number': None})",
    ],
)
def test_a_verdict_that_a_run_cannot_use_is_an_error_of_the_verifier(returned, tmp_path):
    (tmp_path / "mine.py").write_text(f"{IMPORT}\ndef mine(problem, response): return {returned}\n")
    verdict = load(f"{tmp_path}/mine.py:mine").verify(Problem("1", "q", "1"), "a")
    assert verdict.reward == 0 and "mine.py:mine raised" in verdict.message and not verdict.spans


@pytest.mark.parametrize(
    "source, named",
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("undefined_name", "NameError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("def mine(:", "SyntaxError"),
        ("SPANS = 'number'\ndef mine(problem, response): ...", "SPANS = 'number'"),
        ("SCORES = 3\ndef mine(problem, response): ...", "SCORES = 3"),
        ("def mien(problem, response): ...", "'mien'"),
    ],
)
def test_a_module_that_cannot_be_used_is_named(source, named, tmp_path):
    (tmp_path / "mine.py").write_text(source + "\n")
    with pytest.raises(ValueError, match="task.args.verifier") as error:
        load(f"{tmp_path}/mine.py:mine")
    assert "mine.py:mine" in str(error.value) and named in str(error.value)


@pytest.mark.parametrize("name", ["mine", "json"])
def test_a_module_may_define_dataclasses_and_hides_no_other(name, tmp_path):
    lines = ["from __future__ import annotations", "import dataclasses", "@dataclasses.dataclass", "class Number:"]
    lines += ["    value: float", "def mine(problem, response): return Number(1.0).value", ""]
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    assert load(f"{tmp_path}/{name}.py:mine").verify(Problem("1", "q", "1"), "a").correct
    assert importlib.import_module("json") is json


@pytest.mark.parametrize("body", ["return problem.row['gone']", "raise SystemExit(3)", "return None"])
def test_a_gold_response_that_fails_is_a_fault_of_its_row(tmp_path, body):
    (tmp_path / "mine.py").write_text(
        f"def verify(problem, response):\n    return 1.0\ndef gold_response(problem):\n    {body}\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "1"}\n{"question": "r", "answer": "2"}\n')
    args = dict(train="rows.jsonl", test="rows.jsonl", folder=str(tmp_path), verifier=f"{tmp_path}/mine.py:verify")
    faults = selftest(registry.make("rows", args, seed=0), "test")
    assert [fault.id for fault in faults] == ["rows-1", "rows-2"]
    assert all(fault.reason.startswith("gold_response r") for fault in faults)


@pytest.mark.parametrize(
    "body",
    [
        "__import__('time').sleep(60)",
        "__import__('re').match('(a+)+$', 'a' * 60 + 'b')",  # deaf to signals, as any single operation
        "__import__('os')._exit(3)",
    ],
)
def test_a_verifier_that_hangs_or_ends_its_process_costs_a_verdict_that_names_it(body, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"SECONDS = 0.5\ndef mine(problem, response):\n    return {body} if response else 1\n"
    )
    verify, problem = load(f"{tmp_path}/mine.py:mine").verify, Problem("1", "q", "1")
    assert verify(problem, "").correct
    begin = time.monotonic()
    verdict = verify(problem, "a")
    assert time.monotonic() - begin < 20 and verdict.reward == 0
    assert "mine.py:mine" in verdict.message and "timed out" in verdict.message
    assert verify(problem, "").correct  # the next response is judged


def test_a_verifier_sees_the_problem_as_it_is_and_may_print(tmp_path):
    body = "print('seen')\n    return Verdict(1.0, repr(problem), response, True)\n"
    source = f"{IMPORT}\ndef mine(problem, response):\n    {body}"
    (tmp_path / "mine.py").write_text(source)
    problem = Problem("1", "q\ud800", "1", "why", {"a": [1, None]}, (("system", "x"), ("user", "q")))
    verdict = load(f"{tmp_path}/mine.py:mine").verify(problem, "é\n\ud800")
    assert verdict.correct and verdict.message == repr(problem) and verdict.parsed == "é\n\ud800"


def test_seconds_of_a_verifier_are_checked(tmp_path):
    (tmp_path / "mine.py").write_text("SECONDS = 0\ndef mine(problem, response): return 1\n")
    with pytest.raises(ValueError, match="SECONDS = 0; expected a number above 0"):
        load(f"{tmp_path}/mine.py:mine")
