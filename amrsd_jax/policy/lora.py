"""Low-rank adapters: y = W x + alpha / rank * B A x, with W frozen (Hu et al. 2021, arXiv:2106.09685).

Adapters are two more leaves beside a projection's kernel, so a policy with adapters is a policy like any other. What learns
is told from what is frozen by these leaves' names: `split` and `join` are the only ones who do. A tree without adapters
learns whole. What is frozen is kept as the sampler wants it (`Policy.rounded`): no master is needed where nothing is
added up.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from amrsd_jax.names import nearest

PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
_LEAVES = ("lora_a", "lora_b")


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of a policy.

    Attributes:
      rank, alpha: inner size r, and strength before it is divided by the rank.
      targets: projections that have one, of `PROJECTIONS`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self):
        for target in self.targets or ("",):
            if target not in PROJECTIONS:
                raise ValueError(
                    f"lora.targets = {','.join(self.targets)!r}: {target!r}: {nearest(target, PROJECTIONS)}"
                )
        if self.rank < 1:
            raise ValueError(f"lora.rank = {self.rank}: expected at least 1")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha = {self.alpha}: expected more than 0")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def make(rank: int, alpha: float, targets: str) -> Lora | None:
    """Adapters as a config writes them: targets with commas between them; rank 0 is none, though all fields are checked.

    Raises:
      ValueError: naming the field, its value and what was expected.
    """
    adapters = Lora(rank or 1, float(alpha), tuple(name.strip() for name in targets.split(",")))
    return adapters if rank else None


class LoraLinear(nnx.Linear):
    """A projection with an adapter beside it: float32 masters, products in the compute dtype."""

    def __init__(self, inputs: int, outputs: int, lora: Lora, **how):
        super().__init__(inputs, outputs, **how)
        self.scale = lora.scale
        self.lora_a = nnx.Param(jnp.zeros((inputs, lora.rank)))
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs)))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        y = super().__call__(x)
        return y + self.scale * (x @ self.lora_a[...].astype(y.dtype) @ self.lora_b[...].astype(y.dtype))


# ---------------------------------------------------------------- trees


def attach(base: PyTree, lora: Lora, key: Key[Array, ""]) -> PyTree:
    """A policy's parameters with fresh adapters [L, in, r] and [L, r, out], which change nothing: B is zero.

    A is uniform within 1 / sqrt(in), as PEFT makes it.
    """
    layers = dict(base["layers"])
    for i, name in enumerate(lora.targets):
        count, inputs, outputs = base["layers"][name]["kernel"].shape
        bound = inputs**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, i), (count, inputs, lora.rank), minval=-bound, maxval=bound)
        layers[name] = layers[name] | {"lora_a": a, "lora_b": jnp.zeros((count, lora.rank, outputs))}
    return base | {"layers": layers}


def split(params: PyTree) -> tuple[PyTree | None, PyTree]:
    """What is frozen, None if nothing is, and what learns: the adapters, or all of a tree that has none."""
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


def learns(params: PyTree) -> PyTree:
    """What the optimiser moves and a checkpoint keeps."""
    return split(params)[1]


def without(params: PyTree) -> PyTree:
    """The tree without its adapters, if it has any."""
    base, learned = split(params)
    return learned if base is None else base


def join(base: PyTree | None, learned: PyTree) -> PyTree:
    """The tree that `split` took apart, the same arrays."""
    if base is None:
        return learned
    layers = {name: values | learned["layers"].get(name, {}) for name, values in base["layers"].items()}
    return base | {"layers": layers}


def merge(params: PyTree, lora: Lora) -> PyTree:
    """Float32 parameters of the policy without adapters that computes the same: W + alpha / rank * A B."""
    base, adapters = split(params)
    base = jax.tree.map(lambda a: a.astype(jnp.float32), base)
    layers = dict(base["layers"])
    for name, leaf in adapters["layers"].items():
        product = jnp.einsum("lir,lro->lio", leaf["lora_a"], leaf["lora_b"], precision="highest")
        layers[name] = layers[name] | {"kernel": layers[name]["kernel"] + lora.scale * product}
    return base | {"layers": layers}
