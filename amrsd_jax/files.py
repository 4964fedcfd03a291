"""Writes files that are either complete or absent, and reads JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amrsd_jax.names import first_line


def atomic_write(path: Path, content: str | Callable[[Path], Any]) -> None:
    """Writes a file, or a folder, that appears at `path` only when it is complete.

    The content goes to `<path>.tmp`, which is then renamed. Missing parent folders are created. A file at `path` is replaced;
    a folder there must be empty.

    Args:
      path: of the file or folder.
      content: text, or a function that writes to the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    if isinstance(content, str):
        draft.write_text(content, encoding="utf-8")
    else:
        content(draft)
    draft.replace(path)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object that a file holds.

    Raises:
      OSError: it cannot be read.
      ValueError: it holds something else; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {type(value).__name__}; expected a JSON object")
    return value


def read_json_lines(path: Path) -> list[dict]:
    """Reads a file of JSON lines; returns [] if there is none.

    A last line without a line end was cut off when the run was killed, and is left out.

    Raises:
      ValueError: another line is not a JSON object; the message names file and line.
    """
    rows, faults = whole_lines(path)
    if faults:
        raise ValueError(faults[0])
    return rows


def whole_lines(path: Path) -> tuple[list[dict], list[str]]:
    """Returns the rows of a file of JSON lines, and a message for each whole line that is not a JSON object."""
    rows, faults = [], []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path} line {number}: not JSON ({first_line(error)})")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            faults.append(f"{path} line {number}: {type(row).__name__}; expected a JSON object")
    return rows, faults
