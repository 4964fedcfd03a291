"""Makes the mesh, with axes data, fsdp and tensor, and the sharding of parameters by their path."""

import re
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from amrsd_jax.platforms import ROWS, row_devices

AXES = ("data", "fsdp", "tensor")

# (pattern of the path, spec); first match wins; layers have a leading axis that is never split.
RULES = (
    (r"layers/(query|key|value|qkv|gate|up|gate_up)/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/(query|key|value|qkv)/bias$", P(None, "tensor")),
    (r"layers/(output|down)/kernel$", P(None, "tensor", "fsdp")),
    (r"layers/expert_(gate|up)/kernel$", P(None, None, "fsdp", "tensor")),
    (r"layers/expert_down/kernel$", P(None, None, "tensor", "fsdp")),
    (
        r"layers/(query|key|value|qkv|gate|up|gate_up)/lora_a$",
        P(None, "fsdp", None),
    ),  # adapters are split as their kernel is
    (r"layers/(query|key|value|qkv|gate|up|gate_up)/lora_b$", P(None, None, "tensor")),
    (r"layers/(output|down)/lora_a$", P(None, "tensor", None)),
    (r"layers/(output|down)/lora_b$", P(None, None, "fsdp")),
    (r"embed/embedding$", P("tensor", "fsdp")),
    (r"head/kernel$", P("fsdp", "tensor")),
    (r"", P()),
)


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of that shape over the first devices; data = -1 takes all that remain.

    Args:
      devices: None for all visible devices.

    Raises:
      ValueError: there are not enough devices, fsdp x tensor does not divide them, or a process would have idle ones.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        if len(devices) % (fsdp * tensor):
            raise ValueError(f"mesh.fsdp x mesh.tensor = {fsdp * tensor} does not divide {len(devices)} devices")
        data = len(devices) // (fsdp * tensor)
    needed = data * fsdp * tensor
    if needed > len(devices):
        raise ValueError(f"mesh ({data}, {fsdp}, {tensor}) needs {needed} devices; {len(devices)} are visible")
    if needed < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"mesh ({data}, {fsdp}, {tensor}) has {needed} devices; {jax.process_count()} processes have {len(devices)}, "
            "and a mesh over several processes must use all of them"
        )
    kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=kinds, devices=devices[:needed])


def rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is rows."""
    return NamedSharding(mesh, ROWS)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, P())


def check_divides(name: str, value: int, mesh: Mesh) -> None:
    """Raises ValueError, naming both numbers, if `value` rows cannot be split over data x fsdp."""
    ways = row_devices(mesh)
    if value % ways:
        raise ValueError(f"{name} = {value} does not divide over {ways} devices (mesh data x fsdp)")


def shardings(tree: PyTree, mesh: Mesh, *, over: tuple[str, ...] = AXES) -> PyTree:
    """Returns the sharding of every leaf of a parameter tree, or of a state whose paths end like those of parameters.

    A dimension that its axis does not divide is not split; `replicated_by_size` lists these.

    Args:
      tree: arrays or their shapes.
      mesh: as from `make_mesh`.
      over: axes to split over; the others replicate. Decoding splits over "tensor" alone, so that it gathers no weight.
    """

    def leaf(path, a):
        spec = [axis if axis in over else None for axis in _spec(path, a)]
        fits = [axis if axis is None or size % mesh.shape[axis] == 0 else None
                for axis, size in zip(spec, a.shape, strict=False)]  # fmt: skip
        return NamedSharding(mesh, P(*fits))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def replicated_by_size(tree: PyTree, mesh: Mesh) -> list[str]:
    """Returns a line, with both numbers, for each parameter dimension that its axis does not divide."""
    lines = []
    for path, a in jax.tree_util.tree_leaves_with_path(tree):
        for axis, size in zip(_spec(path, a), a.shape, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                lines.append(f"{_name(path)}: {size} is not split over {axis} = {mesh.shape[axis]}")
    return lines


def _spec(path, a) -> P:
    """Returns the spec of a leaf by the first of RULES that matches; a leaf with too few axes is not split."""
    spec = next(spec for pattern, spec in RULES if re.search(pattern, _name(path)))
    return spec if len(spec) <= a.ndim else P()


def _name(path) -> str:
    """Returns a path as text, e.g. layers/query/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
