"""Writes a run's config and environment into its workdir at the first start; a later start must have the same config."""

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from amrsd_jax import processes
from amrsd_jax.config import Config, ConfigError, base
from amrsd_jax.files import atomic_write

FORMAT = 2  # format of a workdir; the first edition wrote no number


def config_json(config: Config) -> dict[str, Any]:
    """Returns a validated config as it is written to `config.json`."""
    return {"format": FORMAT, **config.model_dump()}


def read_config(workdir: Path) -> ConfigDict:
    """Returns the config of a run, not yet validated; fields that did not exist when it was written have their defaults.

    Raises:
      FileNotFoundError: the workdir has no config.json.
      ConfigError: the run was written by the first edition, or a value is not of its field's type.
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
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        written = saved.get("format", 1) if isinstance(saved, dict) else "unknown"
        raise ConfigError(
            f"{path}: format {written}; expected {FORMAT}. The first edition (0.1) named fields and metrics otherwise: "
            "read this run with that version, or start a new one in another --workdir (CHANGELOG.md has the names)"
        )
    return saved


def differences(saved: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Returns a line for each field in which a saved record and these values differ."""
    old, new = _flatten(saved), _flatten(json.loads(json.dumps(values)))
    absent = "(absent)"
    return [
        f"{field}: {old.get(field, absent)!r} there, {new.get(field, absent)!r} here"
        for field in sorted(old.keys() | new.keys())
        if old.get(field, absent) != new.get(field, absent)
    ]


def claim(workdir: Path, config: Config) -> bool:
    """Writes the config into the workdir; returns whether the workdir already held a run with the same config, to be resumed.

    Raises:
      ConfigError: it holds a run with another config, or another process has one; the message lists the differing fields.
    """
    path, values = workdir / "config.json", config_json(config)
    for number, other in enumerate(processes.allgather(values)):
        _require_same(other, values, f"process {number} was started with another config")
    saved = processes.broadcast(_read(path) if path.exists() else None)
    if saved is not None:
        _require_same(saved, values, f"{workdir} holds a run with another config; use another --workdir")
    elif processes.is_first():
        atomic_write(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
    return saved is not None


def _require_same(saved: dict[str, Any], values: dict[str, Any], message: str) -> None:
    """Raises a ConfigError with the message and the differing fields if there are any."""
    if different := differences(saved, values):
        raise ConfigError("\n  ".join([f"{message}. Differing fields:", *different]))


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@processes.only_first
def write_environment(workdir: Path) -> None:
    """Writes `environment.json` at the first start: hardware, versions, commit and date."""
    path = workdir / "environment.json"
    if not path.exists():
        atomic_write(path, json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Returns the hardware, versions, commit and date of this process."""
    device = jax.devices()[0]
    return {
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "platform": device.platform,
        "processor": platform.machine(),
        "python": sys.version.split()[0],
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "amrsd_jax": _version(),
        "commit": _commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version() -> str | None:
    try:
        return importlib.metadata.version("amrsd_jax")
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the source tree, with a plus sign if files differ from it; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
