"""Describes where a run runs: hardware, versions, commit and date."""

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from amrsd_jax.files import atomic_write
from amrsd_jax.processes import only_first


@only_first
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
