"""Addition: the written example, and every sum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks.addition import Addition


def right(step, rate):
    return False


def test_example_by_hand():
    lines, answer = Addition().solve("28167+20566", right)
    assert lines == ["7+6+0=13", "6+6+1=13", "1+5+1=7", "8+0+0=8", "2+2+0=4"]
    assert answer == "48733"


def test_the_last_carry_is_the_first_digit():
    assert Addition(digits=2).solve("99+99", right) == (["9+9+0=18", "9+9+1=19"], "198")


@given(st.integers(1, 18).flatmap(lambda n: st.tuples(*[st.integers(10 ** (n - 1), 10**n - 1)] * 2)))
def test_solves_every_sum(numbers):
    a, b = numbers
    lines, answer = Addition(digits=len(str(a))).solve(f"{a}+{b}", right)
    assert answer == str(a + b)
    for line in lines:
        terms, total = line.split("=")
        assert sum(map(int, terms.split("+"))) == int(total)


@settings(max_examples=30)
@given(st.integers(1, 18), st.integers(0, 2**32 - 1))
def test_draws_numbers_of_as_many_digits(digits, seed):
    a, b = Addition(digits=digits).draw(np.random.default_rng(seed)).split("+")
    assert len(a) == len(b) == digits and a[0] != "0" != b[0]


def test_spread_gives_lengths_a_long_tail():
    generator = np.random.default_rng(0)
    digits = [len(Addition(digits=2, spread=1.0).draw(generator).split("+")[0]) for _ in range(2000)]
    assert np.median(digits) == 2 and max(digits) == 18 and min(digits) == 1
    assert np.mean(np.array(digits) > 8) == pytest.approx(0.074, abs=0.02)  # 1 - Phi(log(8.5 / 2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(spread=-1.0), r"task.args.spread = -1.0: expected 0 to 10"),
        (dict(digits=0), r"task.args.digits = 0: expected 1 to 18"),
        (dict(digits=19), r"task.args.digits = 19: expected 1 to 18"),
        (dict(slip_rate=1.5), r"task.args.slip_rate = 1.5: expected 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Addition(**arguments)
