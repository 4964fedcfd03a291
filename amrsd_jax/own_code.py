"""Finds what a config names in a user's own code."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from amrsd_jax.names import nearest


def find(field: str, place: str) -> tuple[ModuleType, Any]:
    """Returns the module and the object at `module:name` or `file.py:name`. A file is read at every call.

    Args:
      field: the field of the config that names the place, for messages.

    Raises:
      ValueError: there is no such module, file or name, or the module raises.
    """
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise ValueError(f"{field} = {place!r}: expected module:name or file.py:name")
    try:
        module = _from_file(file) if file.endswith(".py") else _from_path(file)
    except (Exception, SystemExit) as error:  # whatever a user's own module raises
        raise ValueError(f"{field} = {place!r}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ValueError(f"{field} = {place!r}: no {name!r} there; {nearest(name, own)}")
    return module, getattr(module, name)


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
