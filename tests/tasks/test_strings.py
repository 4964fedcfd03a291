"""Strings: every edit and its planted mistake, by hand; a mistake always shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks.strings import EDITS, Strings


def test_example_by_hand():
    assert Strings().solve("fkqab rot rev", lambda step, rate: False) == (["rot kqabf", "rev fbaqk"], "fbaqk")


@pytest.mark.parametrize(
    "edit, done, slipped", [("rev", "edcba", "aedcb"), ("rot", "bcdea", "eabcd"), ("swap", "ebcda", "bacde")]
)
def test_edits_by_hand(edit, done, slipped):
    for slip, expected in ((False, done), (True, slipped)):
        answer = Strings().solve(f"abcde {edit}", lambda step, rate, slip=slip: slip)[1]
        assert answer == expected


@given(st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=10, unique=True).map("".join))
def test_a_mistake_always_shows_and_loses_no_letter(word):
    for right, wrong in EDITS.values():
        assert right(word) != wrong(word)
        assert sorted(right(word)) == sorted(wrong(word)) == sorted(word)


@settings(max_examples=30)
@given(st.integers(3, 26), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_draws_distinct_letters_and_known_edits(letters, edits, seed):
    word, *names = Strings(letters=letters, edits=edits).draw(np.random.default_rng(seed)).split(" ")
    assert len(set(word)) == len(word) == letters
    assert len(names) == edits and set(names) <= set(EDITS)


@pytest.mark.parametrize("arguments", [dict(letters=2), dict(letters=27), dict(edits=0), dict(slip_rate=-0.1)])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"task.args.{next(iter(arguments))} = .*: expected"):
        Strings(**arguments)
