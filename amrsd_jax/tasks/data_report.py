"""What a run should know of its data before it starts: size, copies, leaks, skew, prompts that do not fit, odd rows."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amrsd_jax.tasks.base import Problem
from amrsd_jax.tasks.choice import stem
from amrsd_jax.tasks.rows import SPLITS, RowTask
from amrsd_jax.tasks.selftest import selftest

TESTED = 512  # rows a split that the self-test reads, and prompts that are measured, our choice: a start takes seconds
BINS = 8  # of a histogram over the prompt budget


def report(task: Any, encode: Callable[[Problem], list[int]], longest: int, most: int | None = TESTED) -> dict:
    """A task's rows in numbers; {} for a task that makes its own problems.

    Args:
      task: any task.
      encode: problem to prompt ids.
      longest: the prompt budget, tokens.
      most: rows a split that are tested and measured, None for all.
    """
    if not isinstance(task, RowTask):
        return {}
    splits = [split for split in SPLITS if task.rows(split)]
    usual = (
        Counter(problem.answer for problem in task.rows("train")).most_common(1)[0][0] if task.rows("train") else None
    )
    found = {split: _split(task, split, encode, longest, usual, most) for split in splits}
    leaks = {split: _leaks(task.rows("train"), task.rows(split)) for split in splits if split != "train"}
    return {"splits": found, "overlap_with_train": leaks}


def lines(found: dict) -> list[str]:
    """The report for the eye."""
    told = []
    for split, row in found.get("splits", {}).items():
        prompts, skew = row["prompt_tokens"], row["answers"]
        told.append(
            f"data {split}: {row['rows']} rows, {row['duplicates']} of them repeat a question, {len(row['skipped'])} skipped; "
            f"always {skew['usual']!r} scores {skew['usual_share']:.1%}; prompts of {prompts['median']:g} tokens (median) to "
            f"{prompts['most']}, {prompts['too_long']} of {prompts['measured']} over the budget of {prompts['budget']}"
        )
        told += [f"  {fault['id']}: {fault['reason']}" for fault in row["selftest"]["faults"][:10]]
    for split, leak in found.get("overlap_with_train", {}).items():
        if leak["stems"]:
            told.append(
                f"data {split}: {leak['stems']} rows share a stem with train, {leak['questions']} the whole question"
            )
    return told


def _split(task: RowTask, split: str, encode, longest: int, usual: str | None, most: int | None) -> dict:
    problems = task.rows(split)
    answers = Counter(problem.answer for problem in problems)
    lengths = np.array([len(encode(problem)) for problem in problems[:most]])
    counts, edges = np.histogram(np.minimum(lengths, longest), bins=BINS, range=(0, longest))
    return {
        "rows": len(problems),
        "skipped": list(task.skipped(split)),
        "duplicates": len(problems) - len({plain(problem.question) for problem in problems}),
        "answers": {
            "distinct": len(answers),
            "usual": (usual or "")[:80],  # of train
            "usual_share": answers[usual] / len(problems),  # what always giving it scores
            "best_constant": max(answers.values()) / len(problems),
        },
        "prompt_tokens": {
            "measured": len(lengths), "least": int(lengths.min()), "median": float(np.median(lengths)),
            "most": int(lengths.max()), "budget": longest, "too_long": int((lengths > longest).sum()),
            "histogram": counts.tolist(), "edges": edges.tolist(),
        },
        "selftest": {
            "rows": len(problems[:most]),
            "faults": [{"id": fault.id, "reason": fault.reason} for fault in selftest(task, split, most)],
        },
    }  # fmt: skip


def _leaks(train: Sequence[Problem], held: Sequence[Problem]) -> dict[str, int]:
    """Rows whose question, or whose stem (the question without its options), is also in train."""
    questions = {plain(problem.question) for problem in train}
    stems = {plain(stem(problem.question)) for problem in train}
    return {
        "questions": sum(plain(problem.question) in questions for problem in held),
        "stems": sum(plain(stem(problem.question)) in stems for problem in held),
    }


def plain(text: str) -> str:
    """Letters and digits only, in lower case: what two spellings of one question have in common."""
    return re.sub(r"[\W_]+", "", text.lower())
