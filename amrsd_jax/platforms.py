"""Says for which platform a program is made: that of its mesh, which may be one that this machine does not have."""

import jax
from jax.sharding import Mesh


def platform(mesh: Mesh | None) -> str:
    """Returns "cpu", "gpu" or "tpu": the platform of a mesh's devices, or of the default devices without a mesh."""
    name = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)
