"""Tables: a chain by hand, a demonstrator that is wrong about an entry always in the same way, a table of its own seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks import tables
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.tables import Table, Tables, hidden_table

# row is the state, column the next digit
SMALL = Table(
    right=np.array([[0, 2, 1], [2, 0, 0], [1, 1, 2]]),
    wrong=np.array([[1, 0, 2], [0, 1, 2], [0, 2, 0]]),
    slip_rate=np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]),
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tables, "hidden_table", lambda chain: SMALL)
    return Tables(side=3, lookups=3)


def test_example_by_hand(small):
    assert small.solve("0:120", lambda step, rate: False) == (["0+1=2", "2+2=2", "2+0=1"], "221")


def test_after_a_slip_it_goes_on_from_its_own_state(small):
    assert small.solve("0:120", lambda step, rate: step == 0) == (["0+1=0", "0+2=1", "1+0=2"], "012")


def test_every_entry_has_its_own_slip_rate(small):
    slips = []
    small.solve("0:120", lambda step, rate: bool(slips.append((step, rate))))
    assert slips == [(0, 0.2), (1, 0.9), (2, 0.7)]


@settings(max_examples=30)
@given(st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_a_table_in_its_ranges(side, seed):
    table = hidden_table(Tables(side=side, low=0.3, high=0.6, table_seed=seed))
    for entries in (table.right, table.wrong):
        assert entries.shape == (side, side) and entries.min() >= 0 and entries.max() < side
    assert (table.right != table.wrong).all()
    assert table.slip_rate.min() >= 0.4 and table.slip_rate.max() <= 0.7


def test_only_its_own_seed_changes_the_table():
    problems = [ChainTask(Tables(table_seed=3), seed).problem("train", 0) for seed in (0, 1)]
    assert problems[0].question != problems[1].question
    for problem in problems:
        for line in problem.reference.split("\n")[:-1]:
            state, other, value = (int(line[place]) for place in (0, 2, 4))
            assert hidden_table(Tables(table_seed=3)).right[state, other] == value
    assert (hidden_table(Tables(table_seed=3)).right != hidden_table(Tables(table_seed=4)).right).any()


@settings(max_examples=30)
@given(st.integers(2, 10), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_draws_a_start_and_as_many_digits(side, lookups, seed):
    start, others = Tables(side=side, lookups=lookups).draw(np.random.default_rng(seed)).split(":")
    assert len(start) == 1 and len(others) == lookups
    assert all(int(digit) < side for digit in start + others)


def test_certain_demonstrators():
    for low, right in ((1.0, True), (0.0, False)):
        task = ChainTask(Tables(low=low, high=low), seed=0)
        problem = task.problem("train", 0)
        assert (task.attempt(problem, np.random.default_rng(0)) == task.solution(problem)) == right


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(side=1), r"task.args.side = 1: expected 2 to 10"),
        (dict(side=11), r"task.args.side = 11: expected 2 to 10"),
        (dict(lookups=0), r"task.args.lookups = 0: expected 1 to 100"),
        (dict(low=-0.1), r"task.args.low = -0.1: expected 0 to 1"),
        (dict(low=0.6, high=0.5), r"task.args.high = 0.5: expected 0.6 to 1"),
        (dict(table_seed=-1), r"task.args.table_seed = -1: expected 0 to 4294967295"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tables(**arguments)
