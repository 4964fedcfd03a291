"""The --config flag, the --help and the errors of the commands: an error is one line instead of a traceback."""

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from amrsd_jax import config_files, fields
from amrsd_jax.sections import ConfigError

_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "--helpfull")
_FIELDS = """
A field of the config is changed by --config.FIELD=VALUE behind --config, at any depth, for example
  --config.steps=5 --config.optimizer.learning_rate=1e-4 --config.rollout.stop="('\\n\\n',)"
A word behind a colon is passed to the config: --config=baselines:sdpo. --helpfull lists every field and every config."""

flags.disclaim_key_flags()  # --config is a flag of the command that defines it, so that its help lists it


class _ConfigFile(flags.ArgumentParser):
    """Parses the value of --config, a file or a name."""

    def parse(self, argument: str) -> ConfigDict:
        return config_files.read(argument)


def define_config(values: flags.FlagValues = flags.FLAGS, argv: list[str] | None = None) -> flags.FlagHolder:
    """Defines the flags --config=FILE_OR_NAME and --config.FIELD=VALUE.

    Args:
      values: where they are defined.
      argv: arguments that they are read from; None: this process's.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None,
        f"A Python file with a function get_config, or one of the package's configs: {', '.join(config_files.names())}.",
        lock_config=False, accept_new_attributes=True,  # `validate` names an unknown field and the nearest known one
        flag_values=values, sys_argv=argv,
    )  # fmt: skip
    flag = values["config"]
    flag.parser, flag.default_as_str = _ConfigFile(), None
    flags.declare_key_flag("config", values)
    return holder


def parser(
    about: str,
    config: flags.FlagHolder | None = None,
    check: Callable[[ConfigDict], Any] = lambda _: None,
    positional: bool = False,
) -> Callable[[list[str]], list[str]]:
    """Returns a flags parser for `app.run` that prints the help if asked to, and exits with one line for a wrong flag or config.

    Args:
      about: what the command does, at the beginning of its help.
      config: the flag of `define_config`, for commands that have it.
      check: raises ValueError if the config is wrong.
      positional: whether the command has arguments that are no flags.
    """

    def parse(argv: list[str]) -> list[str]:
        if asked := next((flag for flag in argv[1:] if flag in _HELP), None):
            print(_help(about, config is not None, full=asked == "--helpfull"))
            sys.exit(0)
        kind = "error" if config is None else "config error"
        try:
            with _one_line():
                arguments = flags.FLAGS(argv)
                if arguments[1:] and not positional:
                    raise ConfigError(f"{arguments[1]!r}: expected only flags, --NAME=VALUE")
                if config is not None:
                    config.value.lock()
                    check(config.value)
                return arguments
        except ConfigError as error:
            sys.exit(f"{kind}: {error}")

    return parse


def config_arguments(argv: Sequence[str]) -> list[str]:
    """Returns those of a command's arguments that are flags of its config."""
    result = []
    for argument, following in itertools.pairwise([*argv, "--"]):
        if re.match(r"--?(no)?config(?![\w-])", argument):
            result.append(argument)
            if "=" not in argument and not following.startswith("-"):
                result.append(following)
    return result


def load_config(arguments: Sequence[str]) -> ConfigDict:
    """Returns the config that a command has with these flags of it.

    Raises:
      ConfigError: a flag or the config file is wrong.
    """
    values, argv = flags.FlagValues(), ["", *arguments]
    config = define_config(values, argv)
    with _one_line():
        values(argv)
        config.value.lock()
    return config.value


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Raises ConfigError with one line in place of what flags or a config file raise."""
    try:
        yield
    except ConfigError:
        raise
    except KeyError as error:
        raise ConfigError(f"no such section: {' '.join(str(*error.args[:1]).split())}") from error
    except Exception as error:  # whatever a config file raises
        lines = str(error).strip().splitlines() or [""]
        cause = lines[-1].strip()  # the last line is the cause where a config file raises
        named = isinstance(error, ImportError | OSError | TypeError | ValueError | flags.Error)
        raise ConfigError(cause if named else f"{type(error).__name__}: {cause}") from error


def _help(about: str, has_config: bool, full: bool) -> str:
    """Returns the help of the running command: what it does, its flags, and how a config is chosen and changed."""
    lines = [about.strip(), "\nFlags:", *flags.FLAGS.main_module_help().strip().splitlines()[1:]]
    if has_config:
        lines.append(_FIELDS)
    if has_config and full:
        lines += ["\nConfigs:", *(f"  {name}\n      {about}" for name, about in config_files.names().items())]
        lines += ["\nFields, with their defaults:", *fields.every_field()]
    return "\n".join(lines)


def require_named(*names: str) -> None:
    """Refuses flags for a folder that are empty, which would stand for the current directory, or the address of a bucket."""
    for name in names:
        flags.register_validator(name, lambda value: value is None or value.strip(), "expected the name of a folder")
        flags.register_validator(
            name,
            lambda value: value is None or "://" not in value,
            "expected a folder of this machine; mount the bucket and name its folder",
        )
