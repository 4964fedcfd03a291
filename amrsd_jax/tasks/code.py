"""Code verifier: runs the program of a reply in a sandbox (`sandbox`), where the tests of its row decide."""

import contextlib
import functools
import re
from collections.abc import Mapping
from typing import Any

from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks import code_tests, programs, sandbox, sources, syntax

SCORES = ("tests",)  # share of tests passed
SHOWN = ("all", "inputs", "none")
COLUMNS = (  # of tests, setup, function and starter, see `code_rows.CodeTask`
    "tests|test_list|test|private_test_cases",
    "test_setup_code|setup",
    "entry_point|fn_name|metadata",
    "starter_code",
)
_IMPORTS = (  # what LeetCode's starters take for granted, our choice
    "import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys\n"
    "from typing import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\nfrom itertools import *\n"
    "from bisect import *\nfrom math import *\n"
)


def suite(row: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """Returns the tests of a row; raises ValueError if they cannot be read.

    Args:
      columns: of tests, setup, function and starter, see `COLUMNS`.
    """
    tests, setup, function, starter = columns
    start = optional(row, starter)
    return code_tests.suite(
        _value(row, tests), setup=optional(row, setup), helpers=start if _is_python(start) else "",
        function=_function(row, function),
    )  # fmt: skip


def run(row: Mapping[str, Any], tests: Mapping[str, Any], text: str, columns: tuple[str, ...], limits, unsafe: bool):
    """Runs the program in a reply, see `Sandbox.run`; where the row has a starter, after it or as its rest."""
    starter, function = optional(row, columns[3]), _function(row, columns[2])
    if "class Solution" in starter:
        prelude, source = _IMPORTS, text
    elif _begins_function(starter):
        prelude, source = programs.completed(text, starter, function)
    else:
        prelude, source = "", text
    return sandbox.choose(unsafe).run(prelude, source, tests, limits)


def verify_code(
    row: Mapping[str, Any],
    tests: Mapping[str, Any],
    response: str,
    columns: tuple[str, ...],
    limits: sandbox.Limits,
    show: str = "all",
    unsafe: bool = False,
) -> Verdict:
    """Returns the verdict: reward the share of tests passed, or without `limits.partial` 1 if all are and else 0.

    Args:
      row: of the data set.
      tests: of the row, see `suite`.
      response: the whole reply.
      columns: see `COLUMNS`.
      limits: of the program.
      show, unsafe: see `code_rows.CodeTask`.
    """
    text, fenced = programs.program(response, code_tests.names(tests), rest=_begins_function(optional(row, columns[3])))
    if text is None:
        return Verdict(0.0, "no program was found", None, False, {"tests": 0.0})
    outcome = run(row, tests, text, columns, limits, unsafe)
    if outcome is None:
        return Verdict(0.0, "the tests timed out", text, fenced, {"tests": 0.0})
    share = outcome["passed"] / outcome["tests"]
    if share == 1:
        return Verdict(1.0, "correct", text, fenced, {"tests": 1.0})
    reward = share if limits.partial else 0.0
    return Verdict(reward, message(outcome, show), text, fenced, {"tests": share})


def message(outcome: Mapping[str, Any], show: str) -> str:
    """Returns what a verdict says of the first test that failed.

    Args:
      outcome: see `Sandbox.run`.
      show: see `code_rows.CodeTask.show_tests`.
    """
    first = outcome["first"]
    kind, detail = first["failure"], first.get("message") or ""
    if kind == "error":
        place = f" (line {first['line']}, `{first['text']}`)" if first.get("line") else ""
        said = f": {detail}" if detail and (show != "none" or first["type"] == "SyntaxError") else ""
        text = f"{first['type']}{said}{place}"
    else:
        text = {
            "wrong": "wrong result",
            "timed out": "the program timed out",
            "ended": f"the program ended its process{_signal(first.get('signal'))}",
            "unplain": f"the result is a {first.get('type')}, no plain value",
        }[kind]
    names = {"all": ("input", "expected", "got"), "inputs": ("input", "got"), "none": ()}[show]
    fields = [f"{name} {first[name].strip()}" for name in names if first.get(name)]
    whole = "; ".join([text, *fields, f"{outcome['passed']} of {outcome['tests']} tests passed"])
    return whole.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be saved


def states_program(problem: Problem, text: str) -> bool:
    """Returns whether a text gives a program away: a block between fences, a definition, or a line of the right program."""
    text = text[-programs.LONGEST :]
    if re.search(r"^ {0,3}(?:```|~~~)|^[ \t]*(?:def|class)[ \t]+\w[^\n]*:", text, re.MULTILINE):
        return True
    plain = re.sub(r"\s", "", text)
    lines = (re.sub(r"\s", "", line) for line in problem.answer.split("\n"))
    return any(len(line) >= 20 and line in plain for line in lines)


def in_form(problem: Problem) -> str:
    """Returns the right program in the form that the prompt asks for."""
    return f"```python\n{problem.answer.strip(chr(10))}\n```"


def fault(problem: Problem, columns: tuple[str, ...]) -> str:
    """Returns why the tests of a row cannot be read; "" if they can."""
    try:
        code_tests.size(suite(problem.row, columns))
    except ValueError as error:
        return str(error)
    return ""


def optional(row: Mapping[str, Any], column: str) -> str:
    """Returns the text of a column, or of the first of `a|b` that is not null; "" where there is none."""
    value = _value(row, column)
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""


def _value(row: Mapping[str, Any], column: str) -> Any:
    with contextlib.suppress(KeyError):
        return sources.first_column(row, column)
    return None


def _function(row: Mapping[str, Any], column: str) -> str:
    """Returns the name of the function under test; of LiveCodeBench's `metadata`, JSON text, its `func_name`."""
    text = optional(row, column)
    named = re.search(r'"func_name"\s*:\s*"(\w+)"', text)
    return named[1] if named else text if text.isidentifier() else ""


def _begins_function(starter: str) -> bool:
    """Returns whether a reply may be the rest of a function that a starter begins."""
    return "class Solution" not in starter and _is_python(starter)


@functools.lru_cache(maxsize=1024)
def _is_python(text: str) -> bool:
    try:
        return bool(syntax.parse(text).body)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _signal(number: int | None) -> str:
    return f" (signal {number})" if number else ""
