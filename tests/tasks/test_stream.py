"""The stream of prompts: passes over what is too long, counts it, and goes on from a position exactly."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.records import Problem, Verdict
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.stream import next_prompts

LIMIT = 4


@dataclasses.dataclass(frozen=True)
class Lengths(Task):
    """A task whose i-th prompt has lengths[i] tokens, over and over in train."""

    lengths: tuple[int, ...]
    endless: bool = False
    family: str = "chain"

    def problem(self, split, index):
        return Problem(f"{split}-{index}", "x" * self.lengths[index % len(self.lengths)], "")

    def size(self, split):
        return None if self.endless else len(self.lengths)

    def verify(self, problem, response):
        return Verdict(0.0, "", None, False)


def drawn(task, split, position, count):
    return next_prompts(task, split, position, count, encode=lambda problem: [7] * len(problem.question), longest=LIMIT)


def ids(prompts):
    return [problem.id for problem in prompts.problems]


def test_long_prompts_are_passed_over_and_counted():
    prompts, position, skipped = drawn(Lengths((1, 9, 4, 5, 2, 3)), "train", 0, 3)
    assert ids(prompts) == ["train-0", "train-2", "train-4"]
    assert prompts.tokens == ((7,), (7,) * 4, (7,) * 2)
    assert (position, skipped) == (5, 2)


def test_train_goes_round_and_test_ends():
    task = Lengths((1, 9, 2))
    prompts, position, skipped = drawn(task, "train", 0, 5)
    assert ids(prompts) == ["train-0", "train-2", "train-3", "train-5", "train-6"]
    assert (position, skipped) == (7, 2)
    prompts, position, skipped = drawn(task, "test", 0, 5)
    assert ids(prompts) == ["test-0", "test-2"]
    assert (position, skipped) == (3, 1)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda lengths: min(lengths) <= LIMIT),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 20),
)
def test_taking_in_parts_is_taking_at_once(lengths, counts, start):
    task = Lengths(tuple(lengths))
    whole, end, passed = drawn(task, "train", start, sum(counts))
    position, problems, skipped = start, [], 0
    for count in counts:
        prompts, position, more = drawn(task, "train", position, count)
        problems += ids(prompts)
        skipped += more
    assert (problems, position, skipped) == (ids(whole), end, passed)


def test_one_prompt_that_fits_is_enough():
    task = Lengths((9,) * 1500 + (2,) + (9,) * 500)
    assert drawn(task, "train", 1501, 1)[1:] == (2001 + 1501, 2000) and ids(drawn(task, "test", 0, 1)[0]) == [
        "test-1500"
    ]


@pytest.mark.parametrize(
    "task, split, run",
    [(Lengths((9, 9, 9)), "train", 5), (Lengths((9, 9)), "test", 2), (Lengths((9,), endless=True), "test", 1000)],
)
def test_nothing_but_long_prompts_is_an_error(task, split, run):
    with pytest.raises(ValueError, match=f"{run} consecutive {split} prompts .* rollout.prompt_length = 4 .* has 9"):
        drawn(task, split, 0, 1)
