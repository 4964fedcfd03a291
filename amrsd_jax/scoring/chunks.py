"""Reads logits a few tokens at a time, so that no [N, T, V] array exists.

On a mesh every device reads the tokens of its own rows. The output projection, which is split over `fsdp`, is cast and gathered
once before the loop over chunks and not in each, and its gradient is summed over devices once after it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Integer, PyTree, Shaped

from amrsd_jax.platforms import ROWS, row_devices
from amrsd_jax.policy import Params


@runtime_checkable
class Model(Protocol):
    """A model that can score responses: a policy, or a blend of two."""

    @property
    def mesh(self) -> Mesh | None:
        """The mesh of the devices; None on one device."""

    def forward(self, params: Params, tokens: Integer[Array, "N S"]) -> Float[Array, "N S D"]:
        """Returns the hidden states."""

    def head(self, params: Params) -> PyTree[Float[Array, "_ V"]]:
        """Returns the output projection, or those of several policies."""

    def unembed(self, head: PyTree[Float[Array, "_ V"]], hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Returns the logits of hidden states."""


def over_chunks(
    function: Callable[..., PyTree[Float[Array, "n c"]]],
    models: Sequence[tuple[Model, Params, Float[Array, "N T D"]]],
    *arrays: Shaped[Array, "N T ..."],
    chunk: int,
) -> PyTree[Float[Array, "N T"]]:
    """Applies a function to the logits of about `chunk` tokens per device at a time, and concatenates the results.

    Chunks are cut along T, at least one token of every row. The backward pass computes the logits of each chunk again. Only the
    first model has a gradient; that of its projection is accumulated in the precision of its parameters.

    Args:
      function: maps the logits of every model [n, c, V] and parts [n, c, ...] of the arrays to values per token.
      models: models, their parameters and hidden states. A projection is read in the precision of the hidden states.
      arrays: further values of the tokens.
      chunk: tokens of one device whose logits exist at one time.
    """
    readers = [model for model, *_ in models]
    heads = [model.head(params) for model, params, _ in models]
    states = [hidden for *_, hidden in models]
    precisions = jax.tree.map(lambda a: a.dtype, heads[0])
    devices = _Devices(readers[0].mesh, len(states[0]))

    def apply(heads, states, arrays):
        logits = [reader.unembed(*inputs) for reader, *inputs in zip(readers, heads, states, strict=True)]
        return function(*logits, *arrays)

    def forward(heads, states, arrays):
        heads = jax.tree.map(devices.split_vocabulary, heads)
        _, values = jax.lax.scan(lambda _, part: (None, apply(heads, *part)), None, _split((states, arrays), chunk))
        return _join(values, states[0])

    def backward(heads, states, arrays, cotangents):
        heads = jax.tree.map(devices.split_vocabulary, heads)

        def step(total, part):
            (states, arrays), cotangents = part

            def of_first(head, hidden):
                return apply([head, *heads[1:]], [hidden, *states[1:]], arrays)

            head, hidden = jax.vjp(of_first, heads[0], states[0])[1](cotangents)
            return jax.tree.map(lambda t, a: t + a.astype(t.dtype), total, head), hidden

        total = jax.tree.map(lambda a, precision: jnp.zeros(a.shape, precision), heads[0], precisions)
        total = jax.tree.map(devices.split_vocabulary, total)
        total, hidden = jax.lax.scan(step, total, _split(((states, arrays), cotangents), chunk), reverse=True)
        return jax.tree.map(lambda a: a[None], total), _join(hidden, states[0])

    @jax.custom_vjp
    def run(heads, states, arrays):
        return run_forward(heads, states, arrays)[0]

    def run_forward(heads, states, arrays):
        heads = [jax.tree.map(lambda a: a.astype(h.dtype), head) for head, h in zip(heads, states, strict=True)]  # noqa: B023
        inputs = heads, states, arrays
        return devices.run(forward, (P(), ROWS, ROWS), ROWS)(*inputs), inputs

    def run_backward(inputs, cotangents):
        head, hidden = devices.run(backward, (P(), ROWS, ROWS, ROWS), (ROWS, ROWS))(*inputs, cotangents)
        rest = [None] * (len(models) - 1)
        return [jax.tree.map(devices.sum, head), *rest], [hidden, *rest], None

    run.defvjp(run_forward, run_backward)
    return run(heads, states, arrays)


class _Devices:
    """The devices that the rows are split over: `data` and `fsdp` by hand, `tensor` by the compiler."""

    def __init__(self, mesh: Mesh | None, rows: int):
        ways = row_devices(mesh)
        self.mesh = mesh if ways > 1 and rows % ways == 0 else None

    def run(self, function: Callable, inputs: PyTree[P], outputs: PyTree[P]) -> Callable:
        """Returns the function that runs on each device's rows."""
        if self.mesh is None:
            return function
        how = dict(axis_names={"data", "fsdp"}, check_vma=False)
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, **how)

    def axis(self, name: str, size: int) -> str | None:
        """Returns the axis that a dimension is split over, None if it does not divide."""
        return name if size % self.mesh.shape[name] == 0 else None

    def sum(self, gradient: Float[Array, "ways D V"]) -> Float[Array, "D V"]:
        """Returns the sum of the devices' gradients of a projection, split as its parameter is."""
        if self.mesh is None:
            return gradient[0]
        width, vocabulary = self.axis("fsdp", gradient.shape[1]), self.axis("tensor", gradient.shape[2])

        def local(gradient):
            if width is None:
                return jax.lax.psum(gradient[0], ("data", "fsdp"))
            return jax.lax.psum(jax.lax.psum_scatter(gradient[0], "fsdp", tiled=True), "data")

        how = dict(in_specs=P(*ROWS, None, vocabulary), out_specs=P(width, vocabulary), check_vma=False)
        return jax.shard_map(local, mesh=self.mesh, **how)(gradient)

    def split_vocabulary(self, head: Float[Array, "D V"]) -> Float[Array, "D V"]:
        """Keeps a projection split over `tensor`, which the compiler might gather."""
        if self.mesh is None:
            return head
        return jax.lax.with_sharding_constraint(head, P(None, self.axis("tensor", head.shape[1])))


def _split(tree: PyTree[Shaped[Array, "n T ..."]], chunk: int) -> PyTree[Shaped[Array, "chunks n c ..."]]:
    """Cuts arrays along T into parts of about `chunk` tokens, the last of them padded."""
    rows, length = jax.tree.leaves(tree)[0].shape[:2]
    columns = max(1, min(length, chunk // rows))
    chunks = -(-length // columns)

    def split(a):
        a = jnp.pad(a, ((0, 0), (0, chunks * columns - length)) + ((0, 0),) * (a.ndim - 2))
        return a.reshape(rows, chunks, columns, *a.shape[2:]).swapaxes(0, 1)

    return jax.tree.map(split, tree)


def _join(
    tree: PyTree[Shaped[Array, "chunks n c ..."]], like: Shaped[Array, "n T ..."]
) -> PyTree[Shaped[Array, "n T ..."]]:
    """Undoes `_split`."""
    rows, length = like.shape[:2]
    return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(rows, -1, *a.shape[3:])[:, :length], tree)
