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
    gold, reason = _gold(task, problem)
    if reason:
        return Fault(problem.id, reason)
    verdict = task.verify(problem, gold)
    if not verdict.correct:
        return Fault(problem.id, f"rejects its own gold answer {problem.answer[:60]!r}: {verdict.message}")
    gold, reason = _gold(task, other) if other is not None else ("", "no other row")
    if not reason and task.verify(problem, gold).correct:
        return Fault(problem.id, f"accepts the answer of {other.id}, {other.answer[:60]!r} for {problem.answer[:60]!r}")
    return None


def _gold(task: RowTask, problem: Problem) -> tuple[str, str]:
    """Returns a row's gold answer as a response, and "", or the reason why a user's own verifier does not give one."""
    try:
        gold = task.gold_response(problem)
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        return "", f"gold_response raised {type(error).__name__}: {error}"
    return (gold, "") if isinstance(gold, str) else ("", f"gold_response returned {gold!r}; expected text")


def _other(problems: tuple[Problem, ...], i: int) -> Problem | None:
    """Returns a problem with another answer, out of 100 from half the split away; None if all those have the same."""
    ahead = (problems[(i + len(problems) // 2 + k) % len(problems)] for k in range(100))
    return next((other for other in ahead if other.answer != problems[i].answer), None)
