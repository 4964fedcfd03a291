"""Describes hardware that is not there: the devices of a TPU slice, for which libtpu compiles on any machine."""

import dataclasses
import math
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

GIB = 1 << 30

# Device kind -> bytes of memory that the compiler lets a program use (v5p: published), and clock in Hz (published peaks).
_TPUS = {
    "TPU v4": (int(30.75 * GIB), 1.05e9),
    "TPU v5 lite": (int(15.75 * GIB), 1.5e9),
    "TPU v5": (int(95.74 * GIB), 1.75e9),
    "TPU v6 lite": (int(31.25 * GIB), 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Hardware to compile for.

    Attributes:
      name: such as "v5p:2x2x2".
      devices: its devices, which can be put into a mesh but hold no arrays.
      memory: bytes of one device.
      clock: cycles per second.
    """

    name: str
    devices: Sequence[jax.Device]
    memory: int
    clock: float


def topology(name: str) -> Topology:
    """Returns the hardware of a name: a TPU's kind and the chips of its slice along each axis, such as "v5e:2x4".

    JAX's own backend becomes the CPU, so this must be called before anything uses a device.

    Raises:
      ValueError: no such hardware, or its compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")
    # libtpu would ask the metadata server of a TPU VM for these.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run, so that several may compile at a time
    try:
        chips = math.prod(int(size) for size in name.split(":")[1].split("x"))
        bounds = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}  # a host has several unless told otherwise
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **bounds).devices
    except Exception as error:  # the plugin raises every kind
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"topology {name!r}: {cause}; expected a slice such as v5e:2x4, and pip install 'amrsd_jax[tpu-aot]'"
        ) from error
    memory, clock = _TPUS[devices[0].device_kind]
    return Topology(name, devices, memory, clock)
