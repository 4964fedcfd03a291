"""Reports on a task's rows before a run: size, duplicates, leaks, skewed answers, prompts over the budget, faulty rows."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amrsd_jax.records import Problem
from amrsd_jax.tasks.choice import stem
from amrsd_jax.tasks.mixture import Mixture, label
from amrsd_jax.tasks.rows import SPLITS, RowTask
from amrsd_jax.tasks.selftest import selftest

TESTED = 512  # rows per split that are self-tested and whose prompts are measured, our choice: takes seconds
BINS = 8  # of the histogram of prompt lengths


def report(
    task: Any,
    encode: Callable[[Problem], list[int]],
    longest: int,
    most: int | None = TESTED,
    train: Sequence[Problem] | None = None,
) -> dict:
    """Returns statistics of a task's rows by split; {} for a task that generates its problems.

    Of a mixture it returns them under `data_sets`, by set.

    Args:
      task: any task.
      encode: maps a problem to prompt ids.
      longest: prompt budget in tokens.
      most: rows per split that are tested and measured, None for all.
      train: all training rows of the run, with which the other splits must not overlap; None for the task's own.
    """
    if isinstance(task, Mixture):
        own = [one.rows("train") for one in task.tasks.values() if isinstance(one, RowTask)]
        train = [problem for problems in own for problem in problems]
        return {
            "data_sets": {
                name: report(one, lambda problem, name=name: encode(label(name, problem)), longest, most, train)
                for name, one in task.tasks.items()
            }
        }
    if not isinstance(task, RowTask):
        return {}
    splits = [split for split in SPLITS if task.rows(split)]
    answers = Counter(problem.answer for problem in task.rows("train"))
    usual = answers.most_common(1)[0][0] if answers else None
    train = task.rows("train") if train is None else train
    leaks = {split: _leaks(train, task.rows(split)) for split in splits if split != "train"}
    return {
        "splits": {split: _split(task, split, encode, longest, usual, most) for split in splits},
        "overlap_with_train": leaks,
        "notes": list(task.notes),
    }


def lines(statistics: dict) -> list[str]:
    """Formats the report as lines of text."""
    text = list(statistics.get("notes", ()))
    for name, own in statistics.get("data_sets", {}).items():
        text += [f"{name}: {line}" for line in lines(own)]
    for split, row in statistics.get("splits", {}).items():
        prompts, answers = row["prompt_tokens"], row["answers"]
        usual = f"majority-answer baseline {answers['usual_share']:.1%} ({answers['usual']!r})"
        text.append(
            f"data {split}: {row['rows']} rows, {row['duplicates']} duplicate questions, {len(row['skipped'])} skipped; "
            f"{usual if answers['usual'] else 'no gold answers'}; prompts: median "
            f"{prompts['median']:g} tokens, longest {prompts['most']}, {prompts['too_long']} of {prompts['measured']} over the "
            f"budget of {prompts['budget']}"
        )
        text += [f"  {fault['id']}: {fault['reason']}" for fault in row["selftest"]["faults"][:10]]
    for split, leak in statistics.get("overlap_with_train", {}).items():
        if leak["stems"]:
            text.append(
                f"data {split}: {leak['stems']} rows share their question's stem with train, {leak['questions']} of them the "
                "whole question"
            )
    return text


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
            "usual": (usual or "")[:80],  # the most frequent answer in train
            "usual_share": answers[usual] / len(problems),  # accuracy of always giving it
            "best_constant": max(answers.values()) / len(problems),  # of the split's own most frequent answer
        },
        "prompt_tokens": {
            "measured": len(lengths), "least": int(lengths.min()), "median": float(np.median(lengths)),
            "most": int(lengths.max()), "budget": longest, "too_long": int((lengths > longest).sum()),
            "histogram": counts.tolist(), "edges": edges.tolist(),
        },
        "selftest": {
            "rows": len(problems[:most]) if task.judge.gold_response else 0,
            "faults": [{"id": fault.id, "reason": fault.reason} for fault in selftest(task, split, most)],
        },
    }  # fmt: skip


def _leaks(train: Sequence[Problem], held: Sequence[Problem]) -> dict[str, int]:
    """Counts rows whose question, or whose stem (the question without its options), is also in train."""
    questions = {plain(problem.question) for problem in train}
    stems = {plain(stem(problem.question)) for problem in train}
    return {
        "questions": sum(plain(problem.question) in questions for problem in held),
        "stems": sum(plain(stem(problem.question)) in stems for problem in held),
    }


def plain(text: str) -> str:
    """Reduces a question to letters and digits in lower case, so that spellings of one question compare equal."""
    return re.sub(r"[\W_]+", "", text.lower())
