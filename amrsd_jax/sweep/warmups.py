"""Gives a run the warm-ups that a run beside it has made, where its own would be the same."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from amrsd_jax.config import Config
from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.runtime.workdir import config_json

# Sections that no warm-up reads; and those that only the reflection warm-up reads, besides the texts of prompts.
UNREAD = frozenset(
    {"steps", "reward", "credit", "teacher", "distill", "external", "loss", "learning", "optimizer", "monitor", "evaluation",
     "checkpoint", "plan", "report", "tracker"}
)  # fmt: skip
PARTS = {  # what a warm-up leaves in a workdir: the sections of the config on which it does not depend
    "warmup": UNREAD | {"lora", "rollout", "reflection"},
    "reflection_warmup": UNREAD,
}


def reuse_warmups(workdir: Path, config: Config) -> list[str]:
    """Copies warm-ups from the runs in the folder of `workdir` that have the same one; returns what was copied, for a log.

    A warm-up that the workdir has stays. Code and weights are not compared, as with a run that is resumed.
    """
    copied = []
    for part, unread in PARTS.items():
        wanted = _read_fields(config_json(config), unread)
        for source in sorted(workdir.parent.glob(f"*/{part}")):
            if not (workdir / part).exists() and _read_fields(_saved(source.parent), unread) == wanted:
                for path in (source.with_suffix(".json"), source):  # the record first, as the folder completes the copy
                    if path.exists():
                        atomic_write(workdir / path.name, partial(_copy, path))
                copied.append(f"{part} of {source.parent.name}")
    return copied


def _read_fields(config: dict[str, Any], unread: frozenset[str]) -> dict[str, Any]:
    """Returns the part of a config, as `config.json` has it, on which a warm-up depends."""
    read = {name: value for name, value in config.items() if name not in unread}
    return json.loads(json.dumps(read | {"templates": config.get("reflection", {}).get("templates")}))


def _saved(workdir: Path) -> dict[str, Any]:
    try:
        return read_object(workdir / "config.json")
    except (OSError, ValueError):
        return {}  # no run, or one whose config cannot be compared


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True)
    else:
        shutil.copy2(path, to)
