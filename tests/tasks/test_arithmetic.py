"""Values of closed expressions, by hand; and nothing of any other text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.tasks.arithmetic import value

ROOT = math.sqrt


@pytest.mark.parametrize(
    "text, expected",
    [
        ("5", 5),
        ("-.5", -0.5),
        (r"\frac{1}{2}", 0.5),
        (r"\frac12", 0.5),
        (r"14\frac{6}{7}", 14 + 6 / 7),
        (r"-1\frac{1}{2}", -1.5),
        (r"3\sqrt{2}", 3 * ROOT(2)),
        (r"\sqrt[3]{8}", 2),
        (r"\sqrt2+1", ROOT(2) + 1),
        (r"\frac{2\sqrt{3}-3}{2}", (2 * ROOT(3) - 3) / 2),
        (r"2^{10} \cdot 3", 3072),
        ("2^10", 0),  # LaTeX's reading: 2^1 times 0
        ("2^{-1}", 0.5),
        (r"1-\frac{2}{\pi}", 1 - 2 / math.pi),
        ("-2^2", -4),
        ("6/2(3)", 9),
        (r"\left(1+2\right)\times 3", 9),
        ("e^2", math.e**2),
        ("2e^2", 2 * math.e**2),
        ("4.5e3", 4500),
        ("1e5", 100000),
        ("1/0", None),
        ("(-1)^{0.5}", None),
        ("9^{9^{9^9}}", None),
        ("x", None),
        ("1,2", None),
        (r"5\%", None),
        ("(1]", None),
        ("1+", None),
        ("", None),
        ("(" * 200 + "1" + ")" * 90, None),
    ],
)
def test_values_by_hand(text, expected):
    if expected is None:
        assert value(text) is None
    else:
        assert value(text) == pytest.approx(expected)


@given(st.text(alphabet="0123456789.+-*/^(){}[]e \\fracsqtpi", max_size=40))
def test_never_raises(text):
    assert value(text) is None or math.isfinite(value(text))
