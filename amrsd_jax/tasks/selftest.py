"""The self-test of a task's data: every gold answer scores 1 and another row's scores 0, or the row is listed."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from amrsd_jax.tasks.base import Problem
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.verify import THREADS


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row that does not behave: its id, and what it does."""

    id: str
    reason: str


def selftest(task: RowTask, split: str, most: int | None = None) -> list[Fault]:
    """Rows of a split whose own gold answer is refused, or that accept another row's; of the first `most` rows, or all."""
    problems = task.rows(split)[:most]
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(lambda i: _fault(task, problems[i], _other(problems, i)), range(len(problems)))
        return [fault for fault in found if fault]


def _fault(task: RowTask, problem: Problem, other: Problem | None) -> Fault | None:
    own = task.verify(problem, task.gold_response(problem))
    if not own.correct:
        return Fault(problem.id, f"its own answer is refused: {own.message}")
    if other is not None and task.verify(problem, task.gold_response(other)).correct:
        return Fault(problem.id, f"accepts the answer of {other.id}, {other.answer[:60]!r} for {problem.answer[:60]!r}")
    return None


def _other(problems: tuple[Problem, ...], i: int) -> Problem | None:
    """The next problem, from half-way around, with another answer; None if a hundred have the same."""
    ahead = (problems[(i + len(problems) // 2 + k) % len(problems)] for k in range(100))
    return next((other for other in ahead if other.answer != problems[i].answer), None)
