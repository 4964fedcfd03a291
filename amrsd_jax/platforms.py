"""Describes the mesh that a program is made for: its platform, which this machine may lack, and how rows are split over it."""

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

ROWS = P(("data", "fsdp"))  # rows are split over both axes


def platform(mesh: Mesh | None) -> str:
    """Returns "cpu", "gpu" or "tpu": the platform of a mesh's devices, or of the default devices without a mesh."""
    name = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def row_devices(mesh: Mesh | None) -> int:
    """Returns the number of devices that rows are split over: 1 without a mesh."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
