"""Makes tasks by name, and checks their arguments."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from amrsd_jax.names import nearest
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.code_rows import CodeTask
from amrsd_jax.tasks.ladder import Ladder
from amrsd_jax.tasks.mixture import Mixture
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
# Tasks that a mixture can hold: others have a vocabulary of their own.
DATA_SETS = ("ladder", *_ROWS)
SINGLE = (*_CHAINS, *DATA_SETS)
NAMES = (*SINGLE, "mixture")


def embedded(name: str) -> bool:
    """Whether the task generates its own problems, and documents for a warm-up of random parameters with its own vocabulary."""
    return name in _CHAINS


def generated(name: str) -> bool:
    """Whether the task generates its own problems, which never run out, with worked solutions and the place of an error."""
    return name in _CHAINS or name == "ladder"


def data_sets(name: str, args: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Returns the tasks of a mixture, name and arguments, by the names of their sets; any other task under the name ""."""
    if name != "mixture":
        return {"": (name, args)}
    return {data_set: (section["name"], section["args"]) for data_set, section in args.items()}


def row_arguments(name: str, args: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Returns the arguments, to be edited, of the task or of those sets of a mixture that have rows."""
    return [found for task, found in data_sets(name, args).values() if not generated(task)]


def family(name: str) -> str:
    """Returns the name of the prompt templates that the task uses."""
    return "chain" if embedded(name) else _ROWS.get(name, name)


def extras(name: str, args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the spans and those of the scores that `Rollouts.extras` has for the task."""
    if name == "mixture":
        kinds = zip(*(extras(*one) for one in data_sets(name, args).values()), strict=True)
        return tuple(tuple(dict.fromkeys(itertools.chain(*kind))) for kind in kinds)
    task = ChainTask if embedded(name) else Ladder if generated(name) else _kind(name)(family=family(name), **args)
    return task.spans, task.scores


def defaults(name: str) -> dict[str, Any]:
    """Returns the task's arguments with their defaults."""
    return {f.name: f.default for f in _fields(name)}


def check(name: str, args: Mapping[str, Any], splits: Sequence[str] = ("train", "test")) -> None:
    """Checks the name and arguments of a task that is not a mixture.

    Args:
      splits: splits that must have a source of rows.

    Raises:
      ValueError: unknown task or argument, with the nearest valid one, or a value out of range.
    """
    if name not in SINGLE:
        raise ValueError(f"task.name = {name!r}: {nearest(name, SINGLE)}")
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
    if name == "mixture":
        tasks = {}
        for data_set, one in data_sets(name, args).items():
            with placed(data_set):
                tasks[data_set] = make(*one, seed, splits)
        return Mixture(tasks, {data_set: section["share"] for data_set, section in args.items()})
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


@contextlib.contextmanager
def placed(data_set: str) -> Iterator[None]:
    """Begins the message of an error about a set of a mixture with the set's place in the config; the name "" changes nothing."""
    place = f"task.args.{data_set}"
    try:
        yield
    except (OSError, ValueError) as error:
        if not data_set:
            raise
        text = str(error)
        message = f"{place}.{text.removeprefix('task.')}" if text.startswith("task.") else f"{place}: {text}"
        raise (OSError if isinstance(error, OSError) else ValueError)(message) from error


def _fields(name: str) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(_kind(name)) if f.init and f.name not in ("seed", "family")]


def _kind(name: str) -> type:
    """Returns the class that has a task's arguments."""
    return {**_CHAINS, "ladder": Ladder, "code": CodeTask}.get(name, RowTask)
