"""Describes hardware that is not there: a TPU slice or the GPUs of a host, for which JAX compiles on any machine.

Both need their compiler, which is a package: libtpu for TPUs; the plugin of `jax[cuda13]`, with JAX 0.12, for GPUs. Neither a
driver nor a device is asked. XLA picks a GPU's kernels without timing any, and leaves out the plans of cuDNN, so those of a
program that runs may differ.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.experimental import topologies

from amrsd_jax.names import first_line

GIB = 1 << 30

# Device kind -> bytes that the compiler lets a program use (v5p: published), and clock in Hz (from published peaks).
_TPUS = {
    "TPU v4": (int(30.75 * GIB), 1.05e9),
    "TPU v5 lite": (int(15.75 * GIB), 1.5e9),
    "TPU v5": (int(95.74 * GIB), 1.75e9),
    "TPU v6 lite": (int(31.25 * GIB), 1.75e9),
}
_GPUS = {"h100": int(79.1 * GIB)}  # name of a description in this folder -> its bytes
_SHARE = 0.75  # of a GPU, which JAX takes unless XLA_CLIENT_MEM_FRACTION names another


@dataclasses.dataclass(frozen=True)
class Topology:
    """Hardware to compile for.

    Attributes:
      name: such as "v5p:2x2x2".
      devices: its devices, which can be put into a mesh but hold no arrays.
      memory: bytes of one device.
      clock: cycles per second; None where the compiler estimates none.
    """

    name: str
    devices: Sequence[jax.Device]
    memory: int
    clock: float | None


def topology(name: str) -> Topology:
    """Returns the hardware of a name: "v5e:2x4" is a TPU's kind and the chips of its slice along each axis, "h100:8" eight GPUs.

    JAX's own backend becomes the CPU, so this must be called before anything uses a device.

    Raises:
      ValueError: no such hardware, or its compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")
    kind, _, shape = name.partition(":")
    expected = "expected a slice such as v5e:2x4, or h100:8"
    if not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(f"topology = {name!r}: {expected}")
    sizes = [int(size) for size in shape.split("x")]
    try:
        return _gpus(name, kind, math.prod(sizes)) if kind in _GPUS else _tpus(name, math.prod(sizes))
    except Exception as error:  # a plugin raises every kind
        extra = "gpu-aot" if kind in _GPUS else "tpu-aot"
        raise ValueError(
            f"topology = {name!r}: {first_line(error)}; {expected}, and pip install 'amrsd_jax[{extra}]'"
        ) from error


def _tpus(name: str, chips: int) -> Topology:
    # libtpu would ask the metadata server of a TPU VM for these.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run, so several may compile at a time
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}  # a host has several unless told otherwise
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **bounds).devices
    return Topology(name, devices, *_TPUS[devices[0].device_kind])


def _gpus(name: str, kind: str, count: int) -> Topology:
    target = Path(__file__).with_name(f"{kind}.textproto").read_text()
    shape = f"1x1x{count}"  # partitions, hosts, GPUs of a host
    devices = topologies.get_topology_desc(
        platform="cuda", topology_name="", topology=shape, target_config=target
    ).devices
    _assume_cudnn()
    share = float(os.environ.get("XLA_CLIENT_MEM_FRACTION") or _SHARE)
    return Topology(name, devices, int(share * _GPUS[kind]), None)


def _assume_cudnn() -> None:
    """Lets JAX trace attention by cuDNN, for which it would ask a device of this machine for its kind."""
    from jax._src.cudnn import fused_attention_stablehlo

    fused_attention_stablehlo.check_compute_capability = lambda capability: True
