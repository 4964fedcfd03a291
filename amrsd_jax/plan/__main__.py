"""Prints the memory plan of a run: `python -m amrsd_jax.plan --config=CONFIG [--config.FIELD=...] [--devices=8 --memory_gib=80]`.

With `--topology=v5e:2x4` the devices are those of a slice, and its compiler is asked as well (`amrsd_jax.compile`). Exits with
status 1 if the run does not fit.
"""

import os
import sys

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from amrsd_jax.flags import define_config, parser

_CONFIG = define_config()
_DEVICES = flags.DEFINE_integer("devices", None, "Number of accelerators to assume; default: this machine's devices.")
_MEMORY = flags.DEFINE_float("memory_gib", None, "Memory of an accelerator to assume; default: that of this machine's.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Hardware whose compiler is asked as well, as in amrsd_jax.compile.")
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    from amrsd_jax.compile import compiler, report
    from amrsd_jax.compile.topology import topology
    from amrsd_jax.plan import GIB, make_plan, plan_of, sizes
    from amrsd_jax.validate import validate

    logging.set_verbosity(logging.WARNING)  # JAX logs every kind of device that it does not find
    try:
        config = validate(_CONFIG.value)
        if _TOPOLOGY.value:
            target = topology(_TOPOLOGY.value)
            run = sizes.planned(config, devices=target.devices)
            plan = plan_of(run, target.memory, target.name)
        elif _DEVICES.value or _MEMORY.value:  # accelerators, to which this machine's memory is no guide
            memory = None if _MEMORY.value is None else int(_MEMORY.value * GIB)
            plan = plan_of(sizes.planned(config), memory, "assumed devices")
        else:
            plan = make_plan(config)
    except (OSError, ValueError) as error:
        sys.exit(f"config error: {error}")
    print(plan.table(), plan.summary(), *([] if plan.fits else [plan.advice()]), sep="\n")
    if not _TOPOLOGY.value:
        sys.exit(0 if plan.fits else 1)
    rows = [compiler.examine(run, program, target) for program in compiler.chosen(run, None)]
    failed = [row for row in rows if "error" in row or report.total(row) > target.memory]
    print(report.agreement(rows), *(f"{row['program']}: {row['broken'][0]}" for row in failed), sep="\n")
    sys.exit(1 if failed else 0)


def assume_devices(_: ConfigDict) -> None:
    """Sets up the devices to assume, before JAX initializes its backend."""
    if _DEVICES.value:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={_DEVICES.value}"
        jax.config.update("jax_platforms", "cpu")


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__, _CONFIG, assume_devices))
