"""Implements low-rank adapters: y = W x + alpha / rank * B A x, with W frozen (Hu et al. 2021, arXiv:2106.09685).

Adapters are two more leaves, `lora_a` and `lora_b`, beside a projection's kernel, so code that takes a
policy needs no case for them. `split` separates the trainable adapters from the frozen rest by these names; in a tree without
adapters everything is trainable. Frozen weights are kept in the compute dtype (`Policy.cast_params`): they receive no updates,
so they need no float32 masters.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from amrsd_jax.config import LoraConfig

_LEAVES = ("lora_a", "lora_b")


class LoraLinear(nnx.Linear):
    """A linear projection plus its adapter, which has float32 masters and multiplies in the compute dtype."""

    def __init__(self, inputs: int, outputs: int, lora: LoraConfig, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.scale = lora.scale
        self.lora_a = nnx.Param(jnp.zeros((inputs, lora.rank)))
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs)))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        y = super().__call__(x)
        return y + self.scale * (x @ self.lora_a[...].astype(y.dtype) @ self.lora_b[...].astype(y.dtype))


# ---------------------------------------------------------------- trees


def attach(base: PyTree, lora: LoraConfig, key: Key[Array, ""]) -> PyTree:
    """Returns a policy's parameters with new adapters [L, in, r] and [L, r, out] that change nothing yet.

    As in PEFT, A is uniform within +-1 / sqrt(in) and B is zero.
    """
    layers = dict(base["layers"])
    for i, name in enumerate(lora.projections):
        count, inputs, outputs = base["layers"][name]["kernel"].shape
        bound = inputs**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, i), (count, inputs, lora.rank), minval=-bound, maxval=bound)
        layers[name] = layers[name] | {"lora_a": a, "lora_b": jnp.zeros((count, lora.rank, outputs))}
    return base | {"layers": layers}


def split(params: PyTree) -> tuple[PyTree | None, PyTree]:
    """Returns (frozen, trainable): with adapters (the rest, the adapters), without (None, the whole tree)."""
    adapters = {
        name: {leaf: values[leaf] for leaf in _LEAVES}
        for name, values in params.get("layers", {}).items()
        if "lora_a" in values
    }
    if not adapters:
        return None, params
    layers = {
        name: {leaf: a for leaf, a in values.items() if leaf not in _LEAVES}
        for name, values in params["layers"].items()
    }
    layers = {name: values for name, values in layers.items() if values}
    rest = {name: values for name, values in params.items() if name != "layers"}
    return (rest | {"layers": layers} if layers else None), {"layers": adapters}


def combine(frozen: PyTree | None, trainable: PyTree) -> PyTree:
    """Returns the tree that `split` separated; its arrays are not copied."""
    if frozen is None:
        return trainable
    layers = {name: values | trainable["layers"].get(name, {}) for name, values in frozen["layers"].items()}
    return frozen | {"layers": layers}


def trainable(params: PyTree) -> PyTree:
    """Returns the parameters that the optimiser updates: the adapters, or the whole tree if it has none."""
    return split(params)[1]


def without(params: PyTree) -> PyTree:
    """Returns the tree without its adapters, if it has any."""
    frozen, rest = split(params)
    return rest if frozen is None else frozen


def merge(params: PyTree, lora: LoraConfig) -> PyTree:
    """Returns float32 parameters without adapters that compute the same: W + alpha / rank * A B."""
    frozen, adapters = split(params)
    frozen = jax.tree.map(lambda a: a.astype(jnp.float32), frozen)
    layers = dict(frozen["layers"])
    for name, leaf in adapters["layers"].items():
        product = jnp.einsum("lir,lro->lio", leaf["lora_a"], leaf["lora_b"], precision="highest")
        layers[name] = layers[name] | {"kernel": layers[name]["kernel"] + lora.scale * product}
    return frozen | {"layers": layers}
