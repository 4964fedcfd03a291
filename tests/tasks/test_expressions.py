"""Expressions: values by hand, equality by values at points, and bounded work whatever is written."""

import contextlib
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.tasks.equality import same
from amrsd_jax.tasks.expressions import Unsupported, parse
from amrsd_jax.tasks.notation import notation


def value(text: str):
    expression = parse(notation(text))
    return None if expression is None or expression.names else expression.at({})


@pytest.mark.parametrize(
    "text, expected",
    [
        ("5", 5),
        ("-.5", -0.5),
        (r"\frac12", 0.5),
        (r"14\frac{6}{7}", 14 + 6 / 7),
        (r"-1\frac{1}{2}", -1.5),
        (r"\sqrt[3]{8}", 2),
        (r"\frac{2\sqrt{3}-3}{2}", (2 * math.sqrt(3) - 3) / 2),
        (r"2^{10} \cdot 3", 3072),
        ("2^10", 1024),
        ("-2^2", -4),
        ("6/2(3)", 9),
        ("2e^2", 2 * math.e**2),
        ("4.5e3", 4500),
        (r"0.1\overline{6}", 1 / 6),
        (r"\sin 30^\circ", 0.5),
        ("30^\\circ", 30),
        (r"\log_2 8", 3),
        (r"\lfloor 2.5 \rfloor + |-3|", 5),
        (r"\binom{5}{2} + 3!", 16),
        (r"(-8)^{1/3}", -2),
        ("1/0", None),
        ("x", None),
        ("1,2", None),
        ("(1]", None),
        ("1+", None),
        ("3 4", None),
        ("", None),
        ("(" * 200 + "1" + ")" * 90, None),
    ],
)
def test_values_by_hand(text, expected):
    if expected is None:
        assert value(text) is None
    else:
        assert float(value(text)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["9^{9^{9^{9}}}", "(10^{10^{8}})!", "100000!", r"((2^{1000})^{1000})^{1000}", r"e^{e^{e^{e}}}", r"\binom{10^9}{5}"],
)
def test_what_is_too_large_is_left_to_the_caller(text):
    with pytest.raises(Unsupported):
        parse(notation(text)).at({})


def test_factorials_cost_their_making_once_and_are_bounded():
    many = [f"{20_000 - k}!" for k in range(100)]
    begin = time.process_time()
    for terms in (["20000!"] * 40, many[:40]):  # at twelve points and two precisions
        assert same(parse("x"), parse("+".join(["x", *(f"0*{term}" for term in terms)]))) is True
    assert time.process_time() - begin < 20  # a minute where each one is made anew
    for text in ("+".join(many), "+".join(rf"\binom{{20000}}{{{k}}}" for k in range(52))):
        with pytest.raises(Unsupported):
            parse(text).at({})
    assert float(parse(r"\binom{5}{2}*3!").at({})) == 60  # the next evaluation counts anew


@pytest.mark.parametrize(
    "a, b, equal",
    [
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
        (r"\sin\pi", "0", True),
        (r"\sin\pi", r"\cos\frac{\pi}{2}", True),
        (r"\sqrt{2}+10^{-20}", r"\sqrt{2}", False),
        (r"\tan^2(y)+1", r"\sec^2(y)", True),
        (r"x^{2/3}", r"\sqrt[3]{x}^2", True),
        ("x_1+x_2", "x_2+x_1", True),
        ("x_1", "x_2", False),
        ("f(x+1)", "f(x)+f(1)", False),
        ("f(2x)", "f(x+x)", True),
    ],
)
def test_equality_by_values(a, b, equal):
    assert same(parse(notation(a)), parse(notation(b))) is equal


def test_threads_do_not_disturb_one_another():
    a, b, verdicts = parse(r"\sin\pi+x"), parse("x"), []
    threads = [threading.Thread(target=lambda: verdicts.extend(same(a, b) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 80


@given(st.text(alphabet="0123456789.+-*/^(){}[]e \\fracsqtpi|!%x_", max_size=40))
def test_never_raises_but_unsupported(text):
    expression = parse(text)
    if expression is not None and not expression.names:
        with contextlib.suppress(Unsupported):
            expression.at({})
