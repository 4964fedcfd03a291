"""The program `amrsd`, also `python -m amrsd_jax`: `amrsd COMMAND [flags]` is `python -m MODULE [flags]`."""

import os
import runpy
import sys

from amrsd_jax.names import nearest

COMMANDS = {  # name: module, what it does
    "train": ("amrsd_jax.main", "Train from a config, or resume a run."),
    "evaluate": ("amrsd_jax.evaluate", "Evaluate a policy on every benchmark of a config."),
    "compare": ("amrsd_jax.compare", "Compare methods on the same saved rollouts, without training."),
    "plan": ("amrsd_jax.plan", "Estimate the memory of a run."),
    "sweep": ("amrsd_jax.sweep", "Train a grid of seeds and fields, one run after the other."),
    "report": ("amrsd_jax.report", "Write the HTML report of a run again, or one of several runs."),
    "export": ("amrsd_jax.export", "Export a run's policy for transformers, or its adapters for PEFT."),
    "grade": ("amrsd_jax.tasks.grade", "Grade a file of answers by a verifier."),
    "compile": ("amrsd_jax.compile", "Ask the compiler of a TPU or GPU that is not there whether a run fits."),
}


def main() -> None:
    """Runs the command that is named by the first argument; exits with status 2 if there is none of that name."""
    command, *arguments = sys.argv[1:] or [""]
    if command in ("-h", "--help", "help"):
        print(_help())
    elif command in COMMANDS:
        module, _ = COMMANDS[command]
        sys.argv[1:] = arguments
        if not sys.flags.safe_path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does, for verifiers and configs of the user's
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        print(f"amrsd: {command!r}: {nearest(command, COMMANDS)}" if command else _help(), file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        ["amrsd COMMAND [flags]: token-level credit assignment for reinforcement learning with verifiable rewards.", "",
         *lines, "", "`amrsd COMMAND --help` has the flags of a command."]
    )  # fmt: skip


if __name__ == "__main__":
    main()
