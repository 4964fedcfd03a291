"""The --config flag of the commands; an error in it is reported as one line instead of a traceback."""

import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from amrsd_jax.sections import ConfigError


def define_config() -> flags.FlagHolder:
    """Defines the flags --config=FILE and --config.FIELD=VALUE."""
    return config_flags.DEFINE_config_file(
        "config", None, "Experiment, a file of configs/.",
        lock_config=False, accept_new_attributes=True,  # `validate` names an unknown field and the nearest known one
    )  # fmt: skip


def parser(
    config: flags.FlagHolder, check: Callable[[ConfigDict], Any] = lambda _: None
) -> Callable[[list[str]], list[str]]:
    """Returns a flags parser for `app.run` that exits with one line for a wrong config.

    Args:
      config: the flag of `define_config`.
      check: raises ValueError if the config is wrong.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(argv)
            config.value.lock()  # raises if the config file could not be read
            check(config.value)
            return arguments
        except KeyError as error:
            sys.exit(f"config error: no such section: {' '.join(str(*error.args[:1]).split())}")
        except ConfigError as error:
            sys.exit(f"config error: {error}")
        except Exception as error:  # whatever a config file raises
            lines = str(error).strip().splitlines() or [""]
            cause = lines[-1].strip()  # the last line is the cause where a config file raises
            named = isinstance(error, ImportError | OSError | TypeError | ValueError | flags.Error)
            sys.exit(f"config error: {cause if named else f'{type(error).__name__}: {cause}'}")

    return parse


def require_named(*names: str) -> None:
    """Refuses an empty value of flags that name a folder: it would stand for the current directory."""
    for name in names:
        flags.register_validator(name, lambda value: value is None or value.strip(), "expected the name of a folder")
