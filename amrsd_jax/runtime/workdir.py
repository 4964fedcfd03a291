"""The config as a workdir holds it: frozen at the first start, compared at every later one."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from amrsd_jax import processes
from amrsd_jax.checks import ConfigError
from amrsd_jax.config import base


def to_json(config: ConfigDict) -> str:
    """The frozen config as written into a workdir."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def read_config(workdir: Path) -> ConfigDict:
    """The config of a run, from its workdir; fields that did not exist when it was written have their default.

    Raises:
      FileNotFoundError: there is no run.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{workdir} holds no run: it has no config.json")
    config = base()
    with config.unlocked():
        config.update(json.loads(path.read_text()))
    return config


def differences(saved: dict[str, Any], config: ConfigDict) -> list[str]:
    """Fields in which a saved config and this one differ, one line each."""
    old, new = _flat(saved), _flat(json.loads(to_json(config)))
    absent = "(absent)"
    return [
        f"{field}: {old.get(field, absent)!r} there, {new.get(field, absent)!r} here"
        for field in sorted(old.keys() | new.keys())
        if old.get(field, absent) != new.get(field, absent)
    ]


def claim(workdir: Path, config: ConfigDict) -> bool:
    """Makes a workdir this config's own; returns whether it already held a run of the same config, to be resumed.

    Raises:
      ConfigError: it holds a run of another config, or another process has one; the message lists the differing fields.
    """
    path = workdir / "config.json"
    for number, theirs in enumerate(processes.gather(json.loads(to_json(config)))):
        _same(theirs, config, f"process {number} was started with another config")
    held = processes.agree(json.loads(path.read_text()) if path.exists() else None)
    if held is not None:
        _same(held, config, f"{workdir} holds a run of another config; use another --workdir")
    elif processes.first():
        workdir.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(to_json(config))
        draft.replace(path)
    return held is not None


def _same(theirs: dict[str, Any], config: ConfigDict, otherwise: str) -> None:
    if different := differences(theirs, config):
        raise ConfigError("\n  ".join([f"{otherwise}. It differs in", *different]))


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
