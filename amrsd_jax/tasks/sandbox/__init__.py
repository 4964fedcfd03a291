"""Runs programs that a model has written, in a sandbox, and tests them where they cannot reach.

`launch` chooses and starts what the machine has; `inside` is the code that runs there. docs/sandbox.md says what a sandbox guards
against.
"""

from amrsd_jax.tasks.sandbox.launch import Limits, Sandbox, choose

__all__ = ["Limits", "Sandbox", "choose"]
