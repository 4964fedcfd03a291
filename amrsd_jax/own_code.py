"""Finds what a config names in a user's own code, and notices when that code has changed."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from amrsd_jax.names import nearest


def find(field: str, place: str, fits: Callable[[Any], bool], expected: str) -> tuple[ModuleType, Any]:
    """Returns the module and the object at `module:name` or `file.py:name`. A file is read at every call.

    Args:
      field: the field of the config that names the place, for messages.
      fits: whether an object is what is looked for.
      expected: what that is, for messages.

    Raises:
      ValueError: there is no such module, file or name, the module raises, or the object does not fit.
    """
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise ValueError(f"{field} = {place!r}: expected module:name or file.py:name")
    try:
        module = _from_file(file) if file.endswith(".py") else _from_path(file)
    except (Exception, SystemExit) as error:  # whatever a user's own module raises
        raise ValueError(f"{field} = {place!r}: {type(error).__name__}: {error}") from error
    found = vars(module).get(name)
    if not fits(found):
        fault = f"{name} is {type(found).__name__}" if name in vars(module) else f"no {name!r} there"
        known = [key for key, value in vars(module).items() if fits(value) and not key.startswith("_")]
        raise ValueError(
            f"{field} = {place!r}: {fault}; expected {expected}" + (f": {nearest(name, known)}" if known else "")
        )
    return module, found


def digest(place: str) -> dict[str, str]:
    """Returns the SHA-256 of the module that `find` reads; that of no bytes if the module has no file."""
    name = place.rpartition(":")[0]
    file = name if name.endswith(".py") else getattr(importlib.util.find_spec(name), "origin", None)
    source = Path(file).read_bytes() if file and Path(file).is_file() else b""
    return {"sha256": hashlib.sha256(source).hexdigest()}


def _from_file(file: str) -> ModuleType:
    path = str(Path(file).resolve())
    spec = importlib.util.spec_from_file_location(path, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path] = module  # dataclasses and pickle look there; as a path, its name hides no other module
    spec.loader.exec_module(module)
    return module


def _from_path(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.append(here)  # an installed command, unlike `python -m`, does not look there
    return importlib.import_module(name)
