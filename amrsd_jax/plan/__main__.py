"""`python -m amrsd_jax.plan --config=CONFIG [--config.FIELD=...] [--devices=8 --memory_gib=80]` prints what a run will hold."""

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/.", lock_config=False)
_DEVICES = flags.DEFINE_integer("devices", None, "Devices to imagine; by default those of this machine.")
_MEMORY = flags.DEFINE_float("memory_gib", None, "Memory of a device; by default what the devices of this machine say.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    from amrsd_jax.checks import validate
    from amrsd_jax.config import resolve
    from amrsd_jax.plan import GIB, make_plan

    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        validate(_CONFIG.value)
        with tempfile.TemporaryDirectory() as nowhere:
            plan = make_plan(resolve(_CONFIG.value), Path(nowhere))
    except (OSError, ValueError) as error:
        sys.exit(f"config error: {error}")
    if _DEVICES.value or _MEMORY.value:  # of what is imagined this machine knows nothing
        memory = None if _MEMORY.value is None else int(_MEMORY.value * GIB)
        plan = dataclasses.replace(plan, available=memory, device="imagined devices")
    print(plan.table(), plan.summary(), *([] if plan.fits else [plan.advice()]), sep="\n")
    sys.exit(0 if plan.fits else 1)


def parse(argv: list[str]) -> list[str]:
    """Flags to arguments; imagined devices must be there before JAX looks."""
    arguments = flags.FLAGS(argv)
    if _DEVICES.value:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={_DEVICES.value}"
        jax.config.update("jax_platforms", "cpu")
    return arguments


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
