"""Joins the projections of a layer that read the same input, so that a decode step of an accelerator launches fewer kernels.

The columns that one device of the `tensor` axis computes are beside each other: of queries, keys and values split in two, the
joined kernel is [q0 k0 v0 | q1 k1 v1]. Splitting it in two gives each device a part of all three, as splitting each does.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

JOINED = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}


def join_columns(parts: Sequence[Float[Array, "*b _"]], ways: int) -> Float[Array, "*b n"]:
    """Returns arrays joined along their last axis, of which each is split into `ways`."""
    parts = jnp.concatenate([part.reshape(*part.shape[:-1], ways, -1) for part in parts], axis=-1)
    return parts.reshape(*parts.shape[:-2], -1)


def split_columns(joined: Float[Array, "*b n"], sizes: Sequence[int], ways: int) -> list[Float[Array, "*b _"]]:
    """Returns the arrays, of the given sizes, that `join_columns` has joined."""
    bounds = [sum(sizes[:i]) // ways for i in range(1, len(sizes))]
    parts = jnp.split(joined.reshape(*joined.shape[:-1], ways, -1), bounds, axis=-1)
    return [part.reshape(*joined.shape[:-1], -1) for part in parts]


def join(layer: PyTree, ways: int) -> PyTree:
    """Returns the parameters of a layer with joined projections, by the names of `JOINED`; experts stay as they are.

    Adapters A_i, B_i are joined as [A_1 A_2 ..] and a matrix with the B_i as its diagonal blocks.
    """
    used = {name for names in JOINED.values() for name in names}
    return {name: leaf for name, leaf in layer.items() if name not in used} | {
        joined: _join([layer[name] for name in names], ways) for joined, names in JOINED.items() if names[0] in layer
    }


def _join(parts: list[dict[str, Array]], ways: int) -> dict[str, Array]:
    joined = {
        leaf: join_columns([part[leaf] for part in parts], ways) for leaf in ("kernel", "bias") if leaf in parts[0]
    }
    adapted = [i for i, part in enumerate(parts) if "lora_a" in part]
    if adapted:
        joined["lora_a"] = jnp.concatenate([parts[i]["lora_a"] for i in adapted], axis=-1)
        joined["lora_b"] = jnp.concatenate([_diagonal(parts, i, ways) for i in adapted])
    return joined


def _diagonal(parts, i, ways):
    """Returns the rows of the joined B that belong to part i: zero in the columns of the others."""
    b = parts[i]["lora_b"]
    columns = [b if j == i else jnp.zeros((len(b), p["kernel"].shape[-1]), b.dtype) for j, p in enumerate(parts)]
    return join_columns(columns, ways)
