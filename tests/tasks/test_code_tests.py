"""Tests of rows: every form of public data sets, and what is refused; nothing is unpickled."""

import base64
import json
import pickle
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks import code, code_tests
from amrsd_jax.tasks.sandbox.inside import plain

CHECK = """
def check(candidate):
    x = 2
    assert candidate(1) == x
    assert True
    for i in range(3):
        assert candidate(i) == i + 1
"""


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


CASES = [{"input": "1\n[2]", "output": "3", "testtype": "functional"}]


@pytest.mark.parametrize(
    "tests, function, expected",
    [
        (["assert f(1) == 2 ", "assert f(2) == 3"], "", ("asserts", 2)),
        ("import math\nassert f(1) == 2", "", ("asserts", 1)),
        (CHECK, "f", ("asserts", 2)),
        ({"inputs": ["1 2\n"], "outputs": ["3\n"]}, "", ("script", 1)),
        ({"inputs": [["1", "2"]], "outputs": [["3"]]}, "", ("script", 1)),
        ({"inputs": [[1, [2]]], "outputs": [3], "fn_name": "f"}, "", ("calls", 1)),
        ('{"inputs": [[1, [2]]], "outputs": [3], "fn_name": "f"}', "", ("calls", 1)),
        ([{"input": "1 2", "output": "3", "testtype": "stdin"}] * 2, "", ("script", 2)),
        (CASES, "f", ("calls", 1)),
        (packed(json.dumps(CASES)), "f", ("calls", 1)),
    ],
)
def test_every_form_is_read(tests, function, expected):
    read = code_tests.suite(tests, function=function)
    assert (read["kind"], code_tests.size(read)) == expected
    assert code_tests.names(read) == (() if read["kind"] == "script" else ("f",))
    if read["kind"] == "calls":
        assert (read["function"], read["cases"]) == ("f", [[[1, [2]], 3]])


class Trap:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    "tests, message",
    [
        (packed(Trap()), "nothing is unpickled"),
        (packed([json.dumps(CASES)]), "nothing is unpickled"),
        (packed(b"[]"), "nothing is unpickled"),
        (packed("no json"), "not JSON"),
        (base64.b64encode(zlib.compress(b"nothing of a pickle")).decode(), "pickle"),
        (base64.b64encode(b"nothing that is packed").decode(), "not zlib"),
        (None, "tests are 'None'; expected assertions"),
        ([], "expected assertions"),
        ("assert f(1 ==", "tests are not Python"),
        ("f(1)", "tests assert nothing"),
        ("assert True", "tests assert nothing"),
        ("def test_f():\n    assert f(1) == 2", "tests assert nothing outside of functions"),
        ("class Tests:\n    def test_f(self):\n        assert f(1) == 2", "tests assert nothing outside of functions"),
        (CHECK, "no column names the function"),
        ({"inputs": ["1"], "outputs": []}, "not lists of the same length"),
        ([{"input": "1"}], "expected input and output"),
        ([{"input": [1], "output": 2}], "expected texts"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tests, message, capsys):
    with pytest.raises(ValueError, match=message):
        code_tests.suite(tests)
    assert capsys.readouterr().out == ""


def test_a_row_of_live_code_bench():
    row = {
        "starter_code": "class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        ",
        "metadata": '{"func_name": "add"}', "private_test_cases": packed(json.dumps(CASES)),
    }  # fmt: skip
    assert code.suite(row, code.COLUMNS) == {"kind": "calls", "function": "add", "cases": [[[1, [2]], 3]]}


def test_texts_are_json_in_rows_of_texts_alone():
    def case(given, want):
        return code_tests.suite({"inputs": [given], "outputs": [want], "fn_name": "f"})["cases"]

    assert case('"5"', '"5"') == case('"5"', '"5"\n') == [[["5"], "5"]] and case("5", "5") == [[[5], 5]]
    assert case(["5"], "5") == [[["5"], "5"]]


def test_tests_are_shown_as_a_prompt_needs_them():
    def shown(*args, **kwargs):
        return code_tests.shown(code_tests.suite(*args, **kwargs), 1)

    assert shown(["assert f(1)==2", "assert f(2)==3"]) == ["assert f(1) == 2"]
    assert shown(CASES, function="f") == ["f(1, [2]) == 3"]
    assert shown({"inputs": ["1"], "outputs": ["2"]}) == ["Input:\n1\nOutput:\n2"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.text()
    | st.binary() | st.sampled_from([int, str, list]),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner)
    | st.sets(st.integers()) | st.frozensets(st.text()),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=30)
@given(values)
def test_plain_values_come_back_equal(value):
    again = plain.decode(json.loads(json.dumps(plain.encode(value))))
    assert again == value and type(again) is type(value)


def test_other_values_are_not_sent():
    cycle = []
    cycle.append(cycle)
    for value in (object(), lambda: 1, [object()], cycle, type("int", (), {})):
        with pytest.raises(plain.Unplain):
            plain.encode(value)


def test_an_instance_of_a_subclass_is_sent_as_its_base():
    class Always(int):
        __eq__ = __ne__ = lambda self, other: True
        __hash__ = int.__hash__

    again = plain.decode(plain.encode([Always(3), type("L", (list,), {})([1])]))
    assert list(map(type, again)) == [int, list] and again != [4, [1]]
