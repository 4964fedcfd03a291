"""The grid of a sweep: one run, in a workdir of its own, for each combination of values."""

import dataclasses
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from amrsd_jax.config import Config
from amrsd_jax.flags import load_config
from amrsd_jax.runtime.workdir import require_free
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate

LONGEST = 200  # characters of a folder's name; file systems take 255 bytes


@dataclasses.dataclass(frozen=True)
class Run:
    """One combination.

    Attributes:
      workdir: a folder named after the values, as in `credit.rule=grpo,seed=0`.
      arguments: the flags of its config.
      config: the same, validated.
    """

    workdir: Path
    arguments: list[str]
    config: Config

    @property
    def name(self) -> str:
        """The name of the workdir."""
        return self.workdir.name


def axes(settings: Sequence[str], seeds: Sequence[str]) -> dict[str, list[str]]:
    """Returns the values of each field, from settings FIELD=VALUE,VALUE,... and the seeds.

    Raises:
      ConfigError: a setting is not of that form, a field or a value is there twice, or there is nothing to combine.
    """
    result: dict[str, list[str]] = {}
    for field, values in [_setting(text) for text in settings] + [("seed", list(seeds))] * bool(seeds):
        if field in result:
            raise ConfigError(f"{field}: given twice; expected one list of values")
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ConfigError(f"{field}: the value {repeated[0]!r} is there twice")
        result[field] = values
    if not result:
        raise ConfigError("nothing to combine; expected --seeds=0,1,... or --set FIELD=VALUE,VALUE,...")
    return result


def _setting(text: str) -> tuple[str, list[str]]:
    """Returns field and values. Commas within quotes or brackets belong to a value; quotes around a whole one are dropped."""
    field, _, listed = text.partition("=")
    values = re.findall(r"""(?:[^,'"(\[{]|'[^']*'|"[^"]*"|\([^)]*\)|\[[^]]*\]|\{[^}]*\})+""", listed)
    if not re.fullmatch(r"[\w.-]+", field) or ",".join(values) != listed or not values:
        raise ConfigError(f"--set {text}: expected FIELD=VALUE,VALUE,...")
    return field, [re.sub(r"""^(['"])([^'"]*)\1$""", r"\2", value) for value in values]


def expand(out: Path, arguments: Sequence[str], axes: dict[str, list[str]]) -> list[Run]:
    """Returns the runs in the order of their training. Nothing is computed or written.

    Args:
      out: folder of the workdirs.
      arguments: flags of the config that all runs share.
      axes: values by field.

    Raises:
      ConfigError: combinations are refused, or their workdirs hold runs with other configs; each reason is there once, with
        the combinations that it holds for.
    """
    names = sorted(axes, key=lambda name: name == "seed")  # the seed last
    order = sorted(axes, key=lambda name: name != "seed")  # all combinations of one seed before those of the next
    runs: list[Run] = []
    refused: dict[str, list[str]] = defaultdict(list)
    for values in itertools.product(*(axes[name] for name in order)):
        chosen = dict(zip(order, values, strict=True))
        name = ",".join(f"{field}={re.sub(r'[^A-Za-z0-9._+-]+', '_', chosen[field])}" for field in names)
        flags = [*arguments, *(f"--config.{field}={chosen[field]}" for field in names)]
        try:
            if len(name) > LONGEST or any(run.name == name for run in runs):
                raise ConfigError(
                    "the name is too long or that of another combination; expected shorter or plainer values"
                )
            runs.append(Run(out / name, flags, validate(load_config(flags))))
            require_free(runs[-1].workdir, runs[-1].config)
        except ConfigError as error:
            refused[str(error)].append(name)
    if refused:
        every = math.prod(map(len, axes.values()))
        raise ConfigError("\n".join(f"{reason}{_where(few, every)}" for reason, few in refused.items()))
    return runs


def _where(names: Sequence[str], every: int) -> str:
    """Returns which combinations a reason holds for; nothing where it holds for every one."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return "" if len(names) == every else f" (in {names[0]}{more})"
