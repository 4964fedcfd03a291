"""Describes the mesh that a program is made for: its platform, which this machine may lack, and how rows are split over it."""

import re

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

ROWS = P(("data", "fsdp"))  # rows are split over both axes


def platform(mesh: Mesh | None) -> str:
    """Returns "cpu", "gpu" or "tpu": the platform of a mesh's devices, or of the default devices without a mesh."""
    name = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def runs_cudnn(mesh: Mesh | None) -> bool:
    """Returns whether cuDNN's attention runs on a mesh's devices: on NVIDIA GPUs of compute capability 8.0 (Ampere) or above.

    GPUs that are only described (`compile.topology`) do not say theirs, and count.
    """
    if platform(mesh) != "gpu":
        return False
    device = (jax.devices() if mesh is None else mesh.devices.flat)[0]
    capability = str(getattr(device, "compute_capability", "9.0"))  # of AMD's GPUs a name such as gfx942
    return bool(re.fullmatch(r"\d+\.\d+", capability)) and float(capability) >= 8


def row_devices(mesh: Mesh | None) -> int:
    """Returns the number of devices that rows are split over: 1 without a mesh."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
