"""Reads the tests of a row in the forms of public data sets, and checks them; nothing of a row is run or unpickled here.

HumanEval       a text that defines check(candidate)
MBPP            a list of assertions, or a text of them
LiveCodeBench   private_test_cases: JSON, or base64 of zlib of a pickled text of JSON
cases           a list of {"input": ..., "output": ...}, or {"inputs": [...], "outputs": [...]}, of which `fn_name` makes calls;
                where every output is a list of one value (APPS, TACO), a call may return that value too
"""

import ast
import base64
import binascii
import itertools
import json
import pickletools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from amrsd_jax.tasks import syntax
from amrsd_jax.tasks.sandbox.inside import suites

_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")  # instructions of a pickle
_AROUND = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
UNPACKED = 1 << 29  # bytes of packed tests, our choice


def suite(tests: Any, *, setup: str = "", helpers: str = "", function: str = "") -> dict[str, Any]:
    """Returns the tests of a row as `sandbox.inside.suites` runs them.

    Args:
      tests: in any of the forms above.
      setup: assertions run after it, where the names that it does not define are the program's.
      helpers: check(candidate) runs beside it, as the beginning of a program that defines functions for tests.
      function: name of the function under test; "" where the tests or inputs are those of a script.

    Raises:
      ValueError: they have another form, or cannot be read; says what was expected.
    """
    if isinstance(tests, str):
        if (read := _json(tests)) is None:
            return _assertions(tests, setup, helpers, function)
        tests = read
    if tests and _texts(tests):
        return _assertions("\n".join(test.strip() for test in tests), setup, helpers, function)
    if isinstance(tests, Mapping) and "inputs" in tests and "outputs" in tests:
        function = tests.get("fn_name") or function
        inputs, outputs = tests["inputs"], tests["outputs"]
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError("inputs and outputs are not lists of the same length")
        if not function:  # APPS has some texts as lists of their lines
            inputs, outputs = (
                ["\n".join(text) if _texts(text) else text for text in side] for side in (inputs, outputs)
            )
        wrapped = bool(function) and all(isinstance(want, list) and len(want) == 1 for want in outputs)
        return _cases(list(zip(inputs, outputs, strict=True)), function) | ({"wrapped": True} if wrapped else {})
    if isinstance(tests, list) and tests and all(isinstance(test, Mapping) for test in tests):
        if missing := [test for test in tests if "input" not in test or "output" not in test]:
            raise ValueError(f"a case is {str(missing[0])[:100]}; expected input and output")
        function = function if all(test.get("testtype", "functional") == "functional" for test in tests) else ""
        return _cases([(test["input"], test["output"]) for test in tests], function)
    raise ValueError(
        f"tests are {str(tests)[:100]!r}; expected assertions, cases with input and output, or lists of inputs and outputs"
    )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def size(tests: Mapping[str, Any]) -> int:
    """Returns the number of tests of a suite."""
    return suites.count_asserts(tests, syntax.parse) if tests["kind"] == "asserts" else len(tests["cases"])


def names(tests: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names that tests use and a program must define; none for the tests of a script."""
    if tests["kind"] == "asserts":
        tree = syntax.parse(tests["tests"])
        if suites.body(tree) is tree.body:
            tree.body[:0] = syntax.parse(tests.get("setup") or "").body
            return tuple(suites.free_names(tree))
    return (tests["function"],) if tests["kind"] != "script" else ()


def shown(tests: Mapping[str, Any], count: int) -> list[str]:
    """Returns the first tests as a prompt can show them."""
    if tests["kind"] == "asserts":
        return [ast.unparse(node) for node in suites.body(syntax.parse(tests["tests"])) if suites.is_test(node)][:count]
    if tests["kind"] == "calls":
        return [
            f"{tests['function']}({', '.join(map(repr, args))}) == {want!r}" for args, want in tests["cases"][:count]
        ]
    return [f"Input:\n{given}\nOutput:\n{want}" for given, want in tests["cases"][:count]]


def _assertions(text: str, setup: str, helpers: str, function: str) -> dict[str, Any]:
    try:
        tree = syntax.parse(text)
        checks = suites.body(tree) is not tree.body
        syntax.parse(setup := helpers if checks else setup)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"tests are not Python: {error}") from error
    if checks and not function:
        raise ValueError("tests define check(candidate), and no column names the function")
    if not any(map(suites.is_test, suites.body(tree))):
        raise ValueError("tests assert nothing outside of functions")
    return {"kind": "asserts", "tests": text, "setup": setup, "function": function}


def _cases(cases: Sequence[tuple[Any, Any]], function: str) -> dict[str, Any]:
    if not cases:
        raise ValueError("there are no cases")
    if not function:
        for case in cases:
            if not all(isinstance(text, str) for text in case):
                raise ValueError(f"a case is {str(case)[:100]}; expected texts, the input and the output of a script")
        return {"kind": "script", "cases": [list(case) for case in cases]}
    if not function.isidentifier():
        raise ValueError(f"the function is {function!r}; expected a name")
    return {
        "kind": "calls",
        "function": function,
        "cases": [[_arguments(given), _value(want) if isinstance(given, str) else want] for given, want in cases],
    }


def _arguments(given: Any) -> list[Any]:
    """Returns the arguments of a call: a list of them, or a text with one JSON value on each line, as LiveCodeBench has it."""
    if isinstance(given, list):
        return given
    if not isinstance(given, str):
        raise ValueError(
            f"the input of a call is {str(given)[:100]!r}; expected a list of arguments, or a JSON value on each line"
        )
    return [_value(line) for line in given.split("\n") if line.strip()]


def _value(text: Any) -> Any:
    """Returns the value of a JSON text; of a text that is none, and of any other value, itself."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text


def _json(text: str) -> Any:
    """Returns the list or object that a text holds, packed or not; None if it is neither JSON nor packed."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    if not re.fullmatch(r"[A-Za-z0-9+/]{16,64}=*", text[:64]):
        return None
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return unpacked(packed)


def unpacked(packed: bytes) -> Any:
    """Returns the JSON value in LiveCodeBench's private tests: zlib of a pickle that holds one text and nothing else.

    The pickle is not loaded: its instructions are read, and any but those of one text are refused.

    Raises:
      ValueError: it is something else, or longer than `UNPACKED`.
    """
    stream = zlib.decompressobj()
    try:
        pickled = stream.decompress(packed, UNPACKED)
    except zlib.error as error:
        raise ValueError(f"packed tests are not zlib ({error})") from error
    if stream.unconsumed_tail:
        raise ValueError(f"packed tests are longer than {UNPACKED} bytes")
    try:
        instructions = list(itertools.islice(pickletools.genops(pickled), 10))
    except Exception as error:  # whatever genops raises on bytes that are no pickle
        raise ValueError(f"packed tests are no pickle of a text ({error})") from error
    texts = [argument for instruction, argument, _ in instructions if instruction.name in _TEXTS]
    for instruction, _, _ in instructions:
        if instruction.name not in (*_TEXTS, *_AROUND):
            raise ValueError(
                f"packed tests are a pickle with {instruction.name}; expected a text, and nothing is unpickled"
            )
    if len(texts) != 1:
        raise ValueError(f"packed tests are a pickle of {len(texts)} texts; expected one")
    try:
        return json.loads(texts[0])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"packed tests are not JSON ({error})") from error
