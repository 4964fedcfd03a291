"""Reads a config from a user's file, or by its name from those that come with the package: the repository's folder `configs`."""

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from amrsd_jax.names import nearest
from amrsd_jax.sections import ConfigError

_INSTALLED = Path(__file__).parent / "configs"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "configs"  # of a checkout


def names() -> dict[str, str]:
    """Returns the configs of the package: what each is for, the first line of its file, by name."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
    return {
        name: source.partition("\n")[0].strip('"') for name, source in sources.items() if "def get_config(" in source
    }


def read(place: str) -> ConfigDict:
    """Returns the config that a file's `get_config` makes.

    Args:
      place: a Python file, else the name of a config of the package; after a colon the argument of `get_config`, if it has
        one: `mine.py`, `quickstart`, `smollm2:grpo,lora`.

    Raises:
      ConfigError: there is no such file or name, or its `get_config` does not fit. What the file raises passes.
    """
    name, *argument = place.split(":", 1)
    path = Path(name)
    if own := path.is_file():
        label = name
    elif name in names():
        path, label = FOLDER / f"{name}.py", f"config {name}"
    else:
        raise ConfigError(f"no such file, and no config of that name; {nearest(path.stem, names())}")
    with _configs_importable(over_others=not own):
        get_config = getattr(_load("config_file", path), "get_config", None)
        if get_config is None:
            raise ConfigError(f"{label} has no function get_config")
        try:
            inspect.signature(get_config).bind(*argument)
        except TypeError:
            raise ConfigError(f"{label} {'takes no' if argument else 'needs a'} word behind a colon") from None
        config = get_config(*argument)
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"{label}: get_config returned {type(config).__name__}; expected a ConfigDict, as of config.base()"
        )
    return config


def _load(name: str, path: Path, folders: list[str] | None = None) -> ModuleType:
    """Imports a file under a name; as a package if it is given the folders of its modules."""
    loader = SourceFileLoader(name, str(path))  # whatever the file's suffix
    spec = importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=folders)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def _configs_importable(over_others: bool) -> Iterator[None]:
    """Lets files import configs of the package by `from configs import ...` in any working directory.

    Args:
      over_others: whether the name means them even if it is that of a package of the user's; that one is then back at the end.
    """
    if not over_others and importlib.util.find_spec("configs"):
        yield
        return
    others = _forget_configs()
    try:
        _load("configs", FOLDER / "__init__.py", [str(FOLDER)])
        yield
    finally:
        _forget_configs()
        sys.modules.update(others)


def _forget_configs() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "configs"}
