"""Makes tasks by name, and checks their arguments."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from amrsd_jax.names import nearest
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.code_rows import CodeTask
from amrsd_jax.tasks.ladder import Ladder
from amrsd_jax.tasks.rows import RowTask
from amrsd_jax.tasks.strings import Strings
from amrsd_jax.tasks.tables import Tables

_CHAINS = {"addition": Addition, "strings": Strings, "tables": Tables}
_ROWS = {  # name -> family
    "mathematics": "mathematics",
    "choice": "choice",
    "tools": "tools",
    "code": "code",
    "rows": "mathematics",
}
NAMES = (*_CHAINS, "ladder", *_ROWS)


def embedded(name: str) -> bool:
    """Whether the task generates its own problems, and documents for a warm-up of random parameters with its own vocabulary."""
    return name in _CHAINS


def generated(name: str) -> bool:
    """Whether the task generates its own problems, which never run out, with worked solutions and the place of an error."""
    return name not in _ROWS


def family(name: str) -> str:
    """Returns the name of the prompt templates that the task uses."""
    return "chain" if embedded(name) else _ROWS.get(name, name)


def extras(name: str, args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the spans and those of the scores that `Rollouts.extras` has for the task."""
    task = ChainTask if embedded(name) else Ladder if generated(name) else _kind(name)(family=family(name), **args)
    return task.spans, task.scores


def defaults(name: str) -> dict[str, Any]:
    """Returns the task's arguments with their defaults."""
    return {f.name: f.default for f in _fields(name)}


def check(name: str, args: Mapping[str, Any], splits: Sequence[str] = ("train", "test")) -> None:
    """Checks a task's name and arguments.

    Args:
      splits: splits that must have a source of rows.

    Raises:
      ValueError: unknown task or argument, with the nearest valid one, or a value out of range.
    """
    if name not in NAMES:
        raise ValueError(f"task.name = {name!r}: {nearest(name, NAMES)}")
    known = {f.name: f for f in _fields(name)}
    for key, value in args.items():
        if key not in known:
            raise ValueError(f"task.args.{key} = {value!r}: task {name!r} has no such argument; {nearest(key, known)}")
    _kind(name)(**args)  # checks ranges
    for split in () if generated(name) else splits:
        if not args.get(split):
            raise ValueError(f"task.args.{split} = '': expected a JSON-lines file or another source of rows")


def make(name: str, args: Mapping[str, Any], seed: int, splits: Sequence[str] = ("train", "test")) -> Task:
    """Makes a task. Rows are read and checked here, so that a bad one stops a run before any compute.

    `rows` is an alias of `mathematics`.

    Raises:
      ValueError: see `check`; or a bad row, which the message names.
    """
    check(name, args, splits)
    if embedded(name):
        return ChainTask(_CHAINS[name](**args), seed)
    if generated(name):
        return Ladder(seed=seed, **args)
    task = _kind(name)(seed=seed, family=family(name), **args)
    for split in splits:
        if not task.size(split):
            raise ValueError(f"task.args.validation = {task.validation}: leaves no row in {split!r}; expected less")
    task.check()
    return task


def _fields(name: str) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(_kind(name)) if f.init and f.name not in ("seed", "family")]


def _kind(name: str) -> type:
    """Returns the class that has a task's arguments."""
    return {**_CHAINS, "ladder": Ladder, "code": CodeTask}.get(name, RowTask)
