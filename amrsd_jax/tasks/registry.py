"""Tasks: problems and their verifiers, by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from amrsd_jax.names import nearest
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.base import Problem, Task, Verdict
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.strings import Strings
from amrsd_jax.tasks.tables import Tables

__all__ = ["NAMES", "ChainTask", "Problem", "Task", "Verdict", "check", "defaults", "embedded", "family", "make"]

_CHAINS = {"addition": Addition, "strings": Strings, "tables": Tables}
_ROWS = {"mathematics": "mathematics", "choice": "choice", "tools": "tools", "rows": "mathematics"}  # to their family
NAMES = (*_CHAINS, *_ROWS)


def embedded(name: str) -> bool:
    """Whether the task makes its own problems, and documents to warm a model up."""
    return name in _CHAINS


def family(name: str) -> str:
    """Which prompt templates the task uses."""
    return "chain" if embedded(name) else _ROWS[name]


def defaults(name: str) -> dict[str, Any]:
    """The task's arguments and their defaults."""
    return {f.name: f.default for f in _fields(name)}


def check(name: str, args: Mapping[str, Any], splits: Sequence[str] = ("train", "test")) -> None:
    """Raises ValueError for an unknown task or argument, with the nearest valid one, and for a value out of range.

    Args:
      splits: those that there must be rows for.
    """
    if name not in NAMES:
        raise ValueError(f"task.name = {name!r}: {nearest(name, NAMES)}")
    known = {f.name: f for f in _fields(name)}
    for key, value in args.items():
        if key not in known:
            raise ValueError(f"task.args.{key} = {value!r}: task {name!r} has no such argument; {nearest(key, known)}")
    _CHAINS.get(name, RowTask)(**args)  # which know their ranges
    for split in () if embedded(name) else splits:
        if not args.get(split):
            raise ValueError(f"task.args.{split} = '': expected a JSON-lines file, or another source of rows")


def make(name: str, args: Mapping[str, Any], seed: int, splits: Sequence[str] = ("train", "test")) -> Task:
    """The task of that name. Rows are read at once: a bad one stops a run before any compute.

    `rows` is another name of `mathematics`.
    """
    check(name, args, splits)
    if embedded(name):
        return ChainTask(_CHAINS[name](**args), seed)
    task = RowTask(seed=seed, family=family(name), **args)
    for split in splits:
        if not task.size(split):
            raise ValueError(f"task.args.validation = {task.validation}: it leaves no row to train on")
    task.check()
    return task


def _fields(name: str):
    made_from = _CHAINS.get(name, RowTask)
    return [f for f in dataclasses.fields(made_from) if f.init and f.name not in ("seed", "family")]
