"""Where the final answer is found, and what equals what."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.tasks import mathematics, symbolic
from amrsd_jax.tasks.mathematics import final_answer, number, verify_mathematics
from amrsd_jax.tasks.sentences import numbers_of


@pytest.mark.parametrize(
    "response, answer, format_ok",
    [
        (r"so \boxed{42}", "42", True),
        (r"\boxed{1} then \boxed{2}", "2", True),
        (r"\boxed {\frac{1}{2}} is half", r"\frac{1}{2}", True),
        (r"\boxed{a \boxed{7}}", "7", True),  # the box that begins last
        (r"\boxed{3} and \boxed{4", "3", True),  # the last balanced one
        (r"{ \boxed{3} }} \boxed", "3", True),
        ("steps\n#### 72", "72", True),
        ("#### 1\n#### 2\nthanks", "2", True),
        ("#### 5 apples", "5 apples", True),
        ("####\n9", "9", True),
        ("It is 9\n####", None, False),
        ("First 3.\nThen the answer is 1,234.", "1234", False),
        ("It is 3 4", "4", False),
        ("12-5=7", "7", False),
        ("the range is 5-10", "10", False),
        ("that makes -3", "-3", False),
        ("$.50", ".50", False),
        (r"half, \frac{1}{2}", r"\frac{1}{2}", False),
        ("I do not know", None, False),
        ("5\nI do not know", None, False),
        ("", None, False),
        (" \n ", None, False),
    ],
)
def test_final_answer_by_hand(response, answer, format_ok):
    assert final_answer(response) == (answer, format_ok)


@pytest.mark.parametrize(
    "gold, answer, equal",
    [
        ("5", "5", True),
        ("5", "5.0", True),
        ("5", "05", True),
        ("5", " 5. ", True),
        ("5", "$5", True),
        ("50", r"50\%", True),
        ("5", "55", False),
        ("5", "-5", False),
        ("-5", "-5.00", True),
        ("1234", "1,234", True),
        ("1,234", "1234", True),
        ("1234567", "1,234,567.0", True),
        ("1234", "1,2,34", False),
        ("0.5", r"\frac{1}{2}", True),
        (r"\dfrac{1}{2}", "1/2", True),
        ("0.5", ".5", True),
        ("1/3", "0.333", False),
        (r"1\frac{1}{2}", "11/2", False),  # a mixed number is not eleven halves
        ("1/0", "1/0", True),  # as text
        (r"\sqrt{2}", r"\sqrt {2}", True),
        (r"\left(1, 2\right)", "(1,2)", True),
        ("x", "X", False),
    ],
)
def test_equality_by_hand(gold, answer, equal):
    for response in (rf"\boxed{{{answer}}}", f"#### {answer}"):
        assert verify_mathematics(gold, response).correct == equal


def test_messages_do_not_give_the_answer_away():
    assert "17" not in verify_mathematics("17", "#### 18").message
    assert "17" not in verify_mathematics("17", "no idea").message


@pytest.mark.parametrize(
    "text, found",
    [
        ("2 of 1,234 and 0.5, -7, 3/4", ["2", "1234", "0.5", "-7", "3/4"]),
        (r"x5 H2O a_1 \frac{3}{4} v1.5", ["3/4"]),
        ("8-5=3", ["8", "5", "3"]),
        ("答案是5", ["5"]),
        ("", []),
    ],
)
def test_numbers_of_a_text_by_hand(text, found):
    assert numbers_of(text) == found


@given(st.fractions())
def test_a_number_equals_itself_however_it_is_written(value):
    assert number(str(value)) == value
    assert verify_mathematics(str(value), rf"\boxed{{\frac{{{value.numerator}}}{{{value.denominator}}}}}").correct


@given(st.integers(), st.integers())
def test_integers_are_equal_exactly_if_they_are_the_same(a, b):
    assert verify_mathematics(f"{a}", f"#### {b:,}").correct == (a == b)


ODD = st.sampled_from(
    [
        r"\boxed{",
        "}",
        "{",
        "####",
        "\n",
        "٣٤",
        "५",
        "²",
        "½",
        "1" * 5000,
        "9/0",
        r"\frac{1}{0}",
        "-",
        ".",
        ",",
        "$",
        "\x00",
    ]
)


@given(st.text(), st.lists(ODD | st.text(max_size=3)).map("".join))
def test_never_raises(gold, response):
    for a, b in ((gold, response), (response, gold), (response, response)):
        assert verify_mathematics(a, b).reward in (0.0, 1.0)


def test_huge_numbers_are_compared_as_text():
    huge = "1" * 10_000
    assert verify_mathematics(huge, f"#### {huge}").correct
    assert not verify_mathematics(huge, f"#### {huge}1").correct
    assert number(huge) is None and number("1" * 100) == Fraction("1" * 100)


def test_a_response_that_loops_over_boxes_is_judged_at_once():
    begin = time.perf_counter()
    assert verify_mathematics("5", r"\boxed{" * 20_000).parsed is None
    assert verify_mathematics("5", r"\boxed{" * 20_000 + "5}").correct
    assert time.perf_counter() - begin < 5


def test_what_ran_out_of_time_is_asked_again(monkeypatch):
    answered = iter([None, b"equal"])

    class Workers:
        def ask(self, line, *, seconds):
            return next(answered)

    monkeypatch.setattr(mathematics, "workers", Workers)
    pair = r"\sum_{k=1}^{7} k^2", r"\int_0^1 420 x^2 \, dx"
    assert [mathematics.compare(*pair) for _ in range(3)] == [symbolic.TIMED_OUT, symbolic.EQUAL, symbolic.EQUAL]
