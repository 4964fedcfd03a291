"""Tests a task's rows: each gold answer must score 1, and another row's answer 0."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from amrsd_jax.records import Problem
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.verify import THREADS


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row that fails the self-test: its id, and why."""

    id: str
    reason: str


def selftest(task: RowTask, split: str, most: int | None = None) -> list[Fault]:
    """Returns the rows of a split, among the first `most` or all, that reject their gold answer or accept another row's.

    Nothing is tested where the verifier does not say how a gold answer is written.
    """
    if task.judge.gold_response is None:
        return []
    problems = task.rows(split)[:most]
    with ThreadPoolExecutor(THREADS) as threads:
        faults = threads.map(lambda i: _fault(task, problems[i], _other(problems, i)), range(len(problems)))
        return [fault for fault in faults if fault]


def _fault(task: RowTask, problem: Problem, other: Problem | None) -> Fault | None:
    verdict = task.verify(problem, task.gold_response(problem))
    if not verdict.correct:
        return Fault(problem.id, f"rejects its own gold answer {problem.answer[:60]!r}: {verdict.message}")
    if other is not None and task.verify(problem, task.gold_response(other)).correct:
        return Fault(problem.id, f"accepts the answer of {other.id}, {other.answer[:60]!r} for {problem.answer[:60]!r}")
    return None


def _other(problems: tuple[Problem, ...], i: int) -> Problem | None:
    """Returns a problem with another answer, out of 100 from half the split away; None if all those have the same."""
    ahead = (problems[(i + len(problems) // 2 + k) % len(problems)] for k in range(100))
    return next((other for other in ahead if other.answer != problems[i].answer), None)
