"""Describes the rows that a run reads, by number and digest, so that a resumed run notices others."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from amrsd_jax import own_code
from amrsd_jax.problems import Problem
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.mixture import Mixture
from amrsd_jax.tasks.rows import SPLITS, RowTask


def describe(task: Task, splits: Iterable[str] = SPLITS) -> dict[str, Any]:
    """Returns the number of rows and a SHA-256 of each split, and that of a verifier of the user's own; {} without rows.

    Of a mixture it returns such a record by set.
    """
    if isinstance(task, Mixture):
        described = {name: describe(one, splits) for name, one in task.tasks.items()}
        return {name: record for name, record in described.items() if record}
    if not isinstance(task, RowTask):
        return {}
    record: dict[str, Any] = {}
    for split in splits:
        if problems := task.rows(split):
            record[split] = {"rows": len(problems), "sha256": _digest(problems)}
    if task.verifier:
        record["verifier"] = own_code.digest(task.verifier)
    return record


def _digest(problems: Iterable[Problem]) -> str:
    """Hashes everything that a run reads of the problems, in their order; not their ids, in which blank lines count."""
    digest = hashlib.sha256()
    for problem in problems:
        fields = (problem.question, problem.answer, problem.reference, problem.row)
        digest.update(json.dumps(fields, default=str, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
