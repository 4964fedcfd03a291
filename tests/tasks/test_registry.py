"""Tasks by name: arguments with their defaults, and errors that name the nearest valid one."""

import json

import pytest

from amrsd_jax.tasks import registry
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.chain import ChainTask


@pytest.mark.parametrize("name", ["addition", "strings", "tables"])
def test_embedded_tasks_are_made_from_their_defaults(name):
    task = registry.make(name, registry.defaults(name), seed=0)
    assert isinstance(task, ChainTask) and isinstance(task, Task)
    assert registry.embedded(name) and registry.family(name) == task.family == "chain"
    assert task.size("test") is None and registry.extras(name, {}) == (task.spans, task.scores) == (("answer",), ())


def test_rows_have_their_own_family_and_arguments():
    assert not registry.embedded("rows") and registry.family("rows") == "mathematics"
    assert registry.defaults("rows") == dict(
        train="", test="", folder="", question="question", answer="answer", answer_after="", reference="", options="",
        unanswered="refuse", validation=0.0, verifier="",
    )  # fmt: skip
    assert [registry.family(name) for name in ("mathematics", "choice", "tools")] == ["mathematics", "choice", "tools"]
    assert [registry.extras(name, {}) for name in ("rows", "choice")] == [((), ()), ((), ("lenient", "compat"))]


def test_arguments_reach_the_chain():
    problem = registry.make("addition", {"digits": 3}, seed=0).problem("train", 0)
    assert len(problem.question) == len("123+456")


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("adition", {}, "task.name = 'adition': did you mean 'addition'"),
        ("addition", {"digit": 3}, "task.args.digit = 3: .*did you mean 'digits'"),
        ("addition", {"digits": 0}, "task.args.digits = 0: expected 1 to 18"),
        ("choice", {"train": "a", "test": "b", "validation": 1}, "task.args.validation = 1: expected a share in"),
        (
            "tools",
            {"train": "a", "test": "b", "unanswered": "drop"},
            "unanswered = 'drop': expected one of refuse, skip",
        ),
        ("rows", {"train": "a.jsonl"}, "task.args.test = '': expected a JSON-lines file"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, message):
    for refuse in (registry.check, lambda *given: registry.make(*given, seed=0)):
        with pytest.raises(ValueError, match=message):
            refuse(name, arguments)


def test_a_bad_row_stops_a_task_from_being_made(tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"question": "1+1", "answer": 2}\n')
    bad.write_text("{\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl line 1"):
        registry.make("rows", {"train": str(good), "test": str(bad)}, seed=0)


@pytest.mark.parametrize(
    "name, row, message",
    [
        ("choice", {"question": "Which?\nA: 1\nB: 2", "answer": "C"}, "good-1: answer 'C': expected .* A, B"),
        ("tools", {"question": "Do.", "answer": "[1]"}, "good-1: gold answer '\\[1\\]': expected"),
    ],
)
def test_a_gold_answer_that_nothing_can_match_stops_a_task(tmp_path, name, row, message):
    (tmp_path / "good.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        registry.make(name, dict.fromkeys(("train", "test"), str(tmp_path / "good.jsonl")), seed=0)
