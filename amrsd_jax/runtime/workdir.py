"""Writes what a run is into its workdir at the first start, and locks the workdir while a process writes there.

A later start must have the same config, and read the same rows.
"""

import contextlib
import datetime
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from amrsd_jax import processes
from amrsd_jax.config import Config, base
from amrsd_jax.fields import flatten
from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.names import first_line
from amrsd_jax.policy.tokenizer import Tokenizer, load_tokenizer
from amrsd_jax.runtime.console import note
from amrsd_jax.sections import ConfigError

FORMAT = 2  # format of a workdir; the first edition wrote no number
# A resumed run may have other values of these fields, because they change no update.
MAY_CHANGE = r"tracker|evaluation\.(benchmarks\..+\.)?every|report\.rollouts_every"


def config_json(config: Config) -> dict[str, Any]:
    """Returns a validated config as it is written to `config.json`."""
    return {"format": FORMAT, **config.model_dump()}


def read_config(workdir: Path) -> ConfigDict:
    """Returns the config of a run, not yet validated; fields that did not exist when it was written have their defaults.

    Raises:
      FileNotFoundError: the workdir has no config.json.
      ConfigError: the file is damaged, the run was written by the first edition, or a value is not of its field's type.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{workdir} holds no run: it has no config.json")
    saved = _read(path)
    del saved["format"]
    config = base()
    try:
        with config.unlocked():
            config.update(saved)
    except (AttributeError, TypeError, ValueError) as error:  # from ml_collections: no section, another type, a dot
        raise ConfigError(f"{path}: {error}") from error
    return config


def _read(path: Path) -> dict[str, Any]:
    saved = _object(path)
    if saved.get("format") != FORMAT:
        raise ConfigError(
            f"{path}: format {saved.get('format', 1)}; expected {FORMAT}. The first edition (0.1) named fields and metrics "
            "otherwise: read this run with that version, or start a new one in another --workdir (CHANGELOG.md has the names)"
        )
    return saved


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{error}. The file is damaged: restore it, or use another --workdir") from error


def _shared(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any] | None:
    """Returns what process 0 reads from a file, on all processes; None if there is no such file."""
    try:
        return processes.from_first(lambda: read(path) if path.exists() else None)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read_tokenizer(workdir: Path) -> Tokenizer:
    """Returns the tokenizer that a run saved.

    Raises:
      ConfigError: it is damaged; the message names the folder.
    """
    folder = workdir / "tokenizer"
    try:
        return load_tokenizer(folder)
    except Exception as error:  # the library raises every kind, a bare Exception too
        raise ConfigError(f"{folder}: no tokenizer that can be loaded ({first_line(error)})") from error


# ---------------------------------------------------------------- one run, one process, one config


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates a folder and keeps other processes from writing there; the lock ends with this process, however that ends.

    Process 0 holds it for all processes of a run. Where the file system has no locks, a line says so.

    Raises:
      ConfigError: another process holds the lock, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        refusal = processes.broadcast(_lock(folder, stack) if processes.is_first() else None)
        if refusal:
            raise ConfigError(refusal)
        yield


def _lock(folder: Path, stack: contextlib.ExitStack) -> str | None:
    """Locks the file `lock` of a folder until the stack is closed; returns the reason where that is not possible."""
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
    except OSError as error:
        return f"{path}: cannot be written ({error.strerror})"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a child process does not inherit the file, nor thus the lock
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        return f"{folder} is being written by {holder}; wait for its end, or use another folder"
    except OSError as error:
        note(f"{path}: no lock ({error.strerror}); no other process must write into {folder}")
    try:
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
        file.flush()
    except OSError as error:
        return f"{path}: cannot be written ({error.strerror})"
    return None


def claim(workdir: Path, config: Config, rows: dict[str, Any] | None = None) -> bool:
    """Writes the config and a record of the rows into the workdir; returns whether it already held this run, to be resumed.

    A run may be resumed with other fields of MAY_CHANGE, and with more `steps` than before if its learning rate does not depend
    on their number.

    Args:
      rows: the number and digest of the rows that the config names, see `tasks.digest`; {} if it names none.

    Raises:
      ConfigError: the workdir holds a run with another config or other rows, or another process has such; the message lists
        the differing fields.
    """
    values, rows = config_json(config), rows or {}
    for number, read in enumerate(processes.allgather(rows)):
        _require_same(read, rows, f"process {number} reads other rows")
    saved = require_own(workdir, config)
    if saved is None:
        _write(workdir, values, rows)
        return False
    path = workdir / "rows.json"
    if (known := _shared(_object, path)) is not None:
        _require_same(
            known, rows,
            f"the rows, or the file of a verifier or a rule, are not those that the run in {workdir} began with; "
            f"restore them, use another --workdir, or delete {path} to go on with the new ones",
        )  # fmt: skip
    if saved.get("steps") != config.steps:
        note(f"steps: extended from {saved.get('steps')} to {config.steps}")
    _write(workdir, values, rows)
    return True


def require_free(workdir: Path, config: Config) -> None:
    """Checks, without any device, that the workdir holds no run, or this config's.

    Raises:
      ConfigError: it holds another one; see `claim`.
    """
    path = workdir / "config.json"
    if path.exists():
        _require_same_run(workdir, _read(path), config)


def require_own(workdir: Path, config: Config) -> dict[str, Any] | None:
    """Checks that the workdir holds no other run. Returns the config that it holds, None if it holds none, on all processes.

    Raises:
      ConfigError: on all processes, another process has another config, or the workdir holds another one; see `claim`.
    """
    values = config_json(config)
    for number, other in enumerate(processes.allgather(values)):
        _require_same(other, values, f"process {number} was started with another config")
    saved = _shared(_read, workdir / "config.json")
    if saved is not None:
        _require_same_run(workdir, saved, config)
    return saved


def _require_same_run(workdir: Path, saved: dict[str, Any], config: Config) -> None:
    values, steps = flatten(config_json(config)), saved.get("steps")
    saved = flatten(saved)
    saved |= {field: value for field, value in values.items() if re.fullmatch(MAY_CHANGE, field)}
    fault = f"{workdir} holds a run with another config; use another --workdir"
    reason = _why_not_extended(steps, config) if steps != config.steps else ""
    if reason or differences(saved | {"steps": config.steps}, values):
        _require_same(saved, values, fault + (f". steps = {config.steps}: {reason}" if reason else ""))


def _why_not_extended(steps: int, config: Config) -> str:
    """Returns why a run of `steps` steps cannot go on to those of the config; "" if it can: its first steps are the same."""
    if not isinstance(steps, int) or config.steps < steps:
        return f"the run was started with {steps}; they can grow, but not shrink"
    if config.optimizer.schedule != "constant":
        schedule = f"optimizer.schedule = {config.optimizer.schedule!r}"
        return f"the run was started with {steps}, and {schedule} ends with them; only 'constant' can be extended"
    return ""


@processes.only_first
def _write(workdir: Path, values: dict[str, Any], rows: dict[str, Any]) -> None:
    atomic_write(workdir / "config.json", json.dumps(values, indent=2, sort_keys=True) + "\n")
    if rows:
        atomic_write(workdir / "rows.json", json.dumps(rows, indent=2, sort_keys=True) + "\n")


@processes.only_first
def release(workdir: Path) -> None:
    """Removes what a run wrote that was refused before its first step, so that a corrected config can use the workdir.

    A warm-up goes too: nothing would say that the corrected config had made another.
    """
    for name in ("config.json", "rows.json", "data.json", "wandb.json", "reflection_warmup.json"):
        (workdir / name).unlink(missing_ok=True)
    for name in ("warmup", "reflection_warmup", "external"):
        shutil.rmtree(workdir / name, ignore_errors=True)


def differences(saved: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Returns a line for each field in which a saved record and these values differ."""
    old, new = flatten(saved), flatten(json.loads(json.dumps(values)))
    absent = "(absent)"
    return [
        f"{field}: {old.get(field, absent)!r} there, {new.get(field, absent)!r} here"
        for field in sorted(old.keys() | new.keys())
        if not _equal(old.get(field, absent), new.get(field, absent))
    ]


def _equal(a: Any, b: Any) -> bool:
    return a == b or (a != a and b != b)  # nan, which is not equal to itself


def _require_same(saved: dict[str, Any], values: dict[str, Any], message: str) -> None:
    """Raises a ConfigError with the message and the differing fields if there are any."""
    if different := differences(saved, values):
        raise ConfigError("\n  ".join([f"{message}. Differing fields:", *different]))
