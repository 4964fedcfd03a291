"""Tasks: problems and their verifiers, by name.

The names are those of `registry`, fetched when they are first asked for: the verifiers of this folder run without JAX, as
the command `amrsd_jax.tasks.grade` does.
"""

import importlib

__all__ = ["NAMES", "ChainTask", "Problem", "Task", "Verdict", "check", "defaults", "embedded", "family", "make"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("amrsd_jax.tasks.registry"), name)
