"""The --config flag of the commands, and one line in place of a traceback where it is wrong."""

import sys
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict, config_flags


def define_config() -> flags.FlagHolder:
    """--config=FILE and --config.FIELD=VALUE."""
    return config_flags.DEFINE_config_file(
        "config", None, "Experiment, a file of configs/.",
        lock_config=False, accept_new_attributes=True,  # `validate` names an unknown field and the nearest known one
    )  # fmt: skip


def parser(config: flags.FlagHolder, check: Callable[[ConfigDict], None] = lambda _: None):
    """Flags to arguments, for `app.run`; a wrong config is one line, not a traceback.

    Args:
      check: raises ValueError if the config is wrong.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(argv)
            config.value.lock()  # raises if its file could not be read
            check(config.value)
            return arguments
        except KeyError as error:
            sys.exit(f"config error: no such section: {' '.join(error.args[0].split())}")
        except (OSError, ValueError, flags.Error) as error:
            sys.exit(f"config error: {str(error).splitlines()[-1].strip()}")  # the cause, where a config file fails

    return parse
