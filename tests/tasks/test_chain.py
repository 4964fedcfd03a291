"""Embedded tasks: exact verifier, place of the first error, demonstrator with its slips, disjoint splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.records import Problem
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.chain import ChainTask, render
from amrsd_jax.tasks.strings import Strings
from amrsd_jax.tasks.tables import Tables

CHAINS = [Addition(), Addition(digits=2), Strings(), Strings(letters=3, edits=6), Tables(), Tables(side=3, lookups=5)]
TASKS = [ChainTask(chain, seed=3) for chain in CHAINS]
tasks = st.sampled_from(TASKS)
splits = st.sampled_from(["train", "test"])
indices = st.integers(0, 10_000)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=60)

SUM = Problem("hand", "28167+20566", "48733")
STEPS = ["7+6+0=13", "6+6+1=13", "1+5+1=7", "8+0+0=8", "2+2+0=4", "#### 48733"]
ADDITION = ChainTask(Addition(slip_rate=1.0), seed=0)


def text(*lines):
    return "\n".join(lines)


# ---------------------------------------------------------------- the verifier


@quick
@given(tasks, splits, indices)
def test_own_solution_is_correct(task, split, index):
    problem = task.problem(split, index)
    solution = task.solution(problem)
    verdict = task.verify(problem, solution)
    assert (verdict.reward, verdict.parsed, verdict.format_ok) == (1.0, problem.answer, True)
    assert task.first_error(problem, solution) is None


@pytest.mark.parametrize(
    "response, reward, parsed, format_ok",
    [
        (text(*STEPS), 1.0, "48733", True),
        (text(*STEPS) + "\n\n", 1.0, "48733", True),
        ("#### 48733", 1.0, "48733", True),  # the outcome is rewarded, not the steps
        (text(*STEPS[:-1]), 0.0, None, False),
        ("####48733", 0.0, None, False),
        ("#### 48733\nso", 0.0, None, False),
        ("#### 48734", 0.0, "48734", True),
        ("#### 48733 ", 0.0, "48733 ", True),
        ("", 0.0, None, False),
    ],
)
def test_verdict_by_hand(response, reward, parsed, format_ok):
    verdict = ADDITION.verify(SUM, response)
    assert (verdict.reward, verdict.parsed, verdict.format_ok) == (reward, parsed, format_ok)
    assert verdict.correct == (reward == 1.0)
    assert SUM.answer not in verdict.message
    assert [response[slice(*span)] for span in verdict.spans.values()] == ([] if parsed is None else [parsed])


@quick
@given(st.text())
def test_any_text_is_judged_and_only_the_solution_has_no_error(response):
    ADDITION.verify(SUM, response)
    assert (ADDITION.first_error(SUM, response) is None) == (response.rstrip("\n") == text(*STEPS))


# ---------------------------------------------------------------- where the first error is


@pytest.mark.parametrize(
    "response, span",
    [
        (text("7+6+0=13", "6+6+0=12", "1+5+1=7"), (13, 17)),  # from the forgotten carry to the end of the line
        (text("7+6+0=14"), (7, 8)),
        (text("7+6+0=1", "6+6+1=13"), (7, 8)),  # a digit short: the error is where the line ends
        (text("7+6+0=135", "6+6+1=13"), (8, 9)),
        (text(*STEPS[:2]), (18, 19)),  # stops too early: just behind the end
        (text(*STEPS, "so"), (53, 55)),
        ("", (0, 1)),
    ],
)
def test_first_error_by_hand(response, span):
    assert ADDITION.first_error(SUM, response) == span


@quick
@given(tasks, indices, st.data())
def test_a_slip_at_a_pivotal_step_is_found_at_its_line_and_character(task, index, data):
    problem = task.problem("train", index)
    pivotal = task.pivotal_steps(problem)
    if not pivotal:
        return
    slipped = data.draw(st.sampled_from(pivotal))
    attempt = render(*task.chain.solve(problem.question, lambda step, rate: step == slipped))
    start, end = task.first_error(problem, attempt)
    assert attempt[:start].count("\n") == slipped
    solution = task.solution(problem)
    assert attempt[:start] == solution[:start] and attempt[start:][:1] != solution[start:][:1]
    assert end > start and "\n" not in attempt[start:end]
    assert task.verify(problem, attempt).reward == 0.0


# ---------------------------------------------------------------- the demonstrator and the oracle


def test_slips_by_hand_and_a_step_forced_right():
    """slip_rate = 1: every carry is forgotten; the one into step 2 is not, where that step is forced."""
    generator = np.random.default_rng(0)
    slipped = ADDITION.attempt(SUM, generator)
    assert slipped == text("7+6+0=13", "6+6+0=12", "1+5+0=6", "8+0+0=8", "2+2+0=4", "#### 48623")
    forced = ADDITION.attempt(SUM, generator, right=[2])
    assert forced == text("7+6+0=13", "6+6+0=12", "1+5+1=7", "8+0+0=8", "2+2+0=4", "#### 48723")


@quick
@given(tasks, indices, seeds, st.data())
def test_a_forced_step_is_never_the_first_wrong_one(task, index, seed, data):
    problem = task.problem("train", index)
    right = data.draw(st.sampled_from(task.pivotal_steps(problem) or [0]))
    attempt = task.attempt(problem, np.random.default_rng(seed), right=[right])
    span = task.first_error(problem, attempt)
    assert span is None or attempt[: span[0]].count("\n") != right


@pytest.mark.parametrize("make", [Addition, Strings])
def test_slip_rate_is_the_chance_of_a_slip(make):
    never, always = (ChainTask(make(slip_rate=rate), seed=0) for rate in (0.0, 1.0))
    generator = np.random.default_rng(0)
    for index in range(20):
        problem = never.problem("train", index)
        assert never.attempt(problem, generator) == never.solution(problem)
        attempt = always.attempt(problem, generator)
        for pivotal in always.pivotal_steps(problem)[:1]:
            assert attempt[: always.first_error(problem, attempt)[0]].count("\n") == pivotal


@quick
@given(tasks, indices, seeds)
def test_the_oracle_names_the_first_wrong_line_or_a_pivotal_one(task, index, seed):
    problem, generator = task.problem("train", index), np.random.default_rng(seed)
    attempt = task.attempt(problem, generator)
    step, line = task.reflect(problem, attempt, generator)
    assert line == task.solution(problem).split("\n")[step]
    span = task.first_error(problem, attempt)
    if span is not None:
        assert attempt[: span[0]].count("\n") == step
    elif task.pivotal_steps(problem):
        assert step in task.pivotal_steps(problem)


@quick
@given(tasks, indices, seeds)
def test_a_written_reflection_is_the_true_line_unless_that_states_the_answer(task, index, seed):
    problem = task.problem("train", index)
    attempt = task.attempt(problem, np.random.default_rng(seed))
    written = task.write_reflection(problem, attempt, np.random.default_rng(seed))
    line = task.reflect(problem, attempt, np.random.default_rng(seed))[1]
    assert written == (None if task.states_answer(problem, line) else line)


# ---------------------------------------------------------------- problems


@quick
@given(st.sampled_from(CHAINS), splits, indices)
def test_a_problem_is_a_pure_function_of_seed_split_and_index(chain, split, index):
    task = ChainTask(chain, seed=7)
    problem = task.problem(split, index)
    task.problem(split, index + 1)
    assert task.problem(split, index) == problem == ChainTask(chain, seed=7).problem(split, index)
    assert problem.id == f"{split}-{index}"


def test_seeds_and_indices_give_different_problems():
    questions = {ChainTask(Addition(), seed).problem("train", i).question for seed in range(5) for i in range(20)}
    assert len(questions) > 95


@pytest.mark.parametrize(
    "chain", [Addition(digits=1), Addition(digits=2), Strings(letters=3, edits=1), Tables(side=4, lookups=2)]
)
def test_no_test_question_is_ever_trained_on(chain):
    """Spaces so small that every question is drawn many times."""
    task, generator = ChainTask(chain, seed=0), np.random.default_rng(0)
    test = {task.problem("test", i).question for i in range(200)}
    train = {task.problem("train", i).question for i in range(500)}
    warm_up = {task.training_problem(generator).question for _ in range(500)}
    assert test and not test & (train | warm_up)


def test_a_chain_with_too_few_questions_says_so():
    class One:
        words = ()

        def draw(self, generator):
            return "1+1"

        def solve(self, question, slip):
            return [], "2"

    splits = []
    for split in ("train", "test"):
        try:
            ChainTask(One(), seed=0).problem(split, 0)
        except ValueError as error:
            splits.append(split)
            assert f"'{split}'" in str(error)
    assert len(splits) == 1  # its one question is in the other
