"""Defines the key/value cache of rows in flight: its layouts, how tokens are appended, and attention of one query per row.

Each layout is a class whose instances are one layer's cache, with the attention that reads it:

| name | arrays | attention | for |
|---|---|---|---|
| `blocks` | keys in transposed blocks, values [B, K, S, H] | XLA's | CPUs |
| `xla` | keys and values [B, S, K, H] | XLA's | TPUs where `ragged` cannot run |
| `cudnn` | the same | NVIDIA's fused kernel, which reads live positions only | GPUs |
| `ragged` | keys and values in turns, [B, S, 2 K, H] | JAX's ragged paged attention, which reads live pages only | TPUs |
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Integer

from amrsd_jax.platforms import ROWS
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.attention import cudnn_lacks

_PAGES = 8  # most pages that the ragged kernel reads at a time; with more it does not compile for every TPU
_VMEM = 32 << 20  # bytes that it may use of a TPU's vector memory


class Blocks(NamedTuple):
    """Keys in blocks of positions, each transposed as the matrix product of the scores needs it.

    Stored as [positions, H] they would be transposed at every decode step, which on a CPU takes several times as long as the
    product itself.
    """

    keys: Float[Array, "B K n H b"]
    values: Float[Array, "B K S H"]

    block = 64  # S is a multiple of it
    heads_axis = 1
    joined = False

    @classmethod
    def lay_out(cls, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]) -> "Blocks":
        """Returns keys and values of whole rows in this layout, T rounded up to whole blocks."""
        k, v = _pad(k, cls.block), _pad(v, cls.block)
        rows, length, heads, size = k.shape
        k = k.reshape(rows, length // cls.block, cls.block, heads, size)
        return cls(k.transpose(0, 3, 1, 4, 2), v.swapaxes(1, 2))

    @property
    def length(self) -> int:
        """S, positions of a row."""
        return self.values.shape[2]

    @property
    def heads(self) -> int:
        """K, heads of keys and of values."""
        return self.values.shape[1]

    def resize(self, length: int) -> "Blocks":
        """Returns the layer padded or cut to `length` positions, a multiple of the block."""
        return Blocks(_fit(self.keys, 2, length // self.block), _fit(self.values, 2, length))

    def append(self, k: Float[Array, "B K H"], v: Float[Array, "B K H"], position: Integer[Array, " B"]) -> "Blocks":
        """Returns the layer with the keys and values of one token per row; tokens at S or beyond are dropped."""
        rows = jnp.arange(len(position))
        at = rows, slice(None), position // self.block, slice(None), position % self.block
        keys = self.keys.at[at].set(k.astype(self.keys.dtype), mode="drop")
        return Blocks(keys, self.values.at[rows, :, position].set(v.astype(self.values.dtype), mode="drop"))

    def attend(
        self,
        q: Float[Array, "B N H"],
        position: Integer[Array, " B"],
        mesh: Mesh | None = None,
        *,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Float[Array, "B N H"]:
        """Returns the attention of one query per row over the positions up to its own; the softmax is in float32.

        Args:
          q: queries.
          position: position of each query.
          mesh: mesh that rows and heads are split over, for the kernels that the compiler cannot partition.
          window, softcap: as in `attention`.
        """
        rows, heads, blocks, size, _ = self.keys.shape
        q = jnp.broadcast_to(q.reshape(rows, heads, 1, -1, size), (rows, heads, blocks, q.shape[1] // heads, size))
        scores = jnp.einsum("BKnGH,BKnHb->BKnGb", q, self.keys, preferred_element_type=jnp.float32) * size**-0.5
        scores = scores.swapaxes(2, 3).reshape(rows, heads, -1, self.length)
        weights = _softmax(scores, position, window, softcap)
        return jnp.einsum("BKGS,BKSH->BKGH", weights.astype(self.values.dtype), self.values).reshape(rows, -1, size)


class Rows(NamedTuple):
    """Keys and values of a position beside each other, as the attention of accelerators reads them."""

    keys: Float[Array, "B S K H"]
    values: Float[Array, "B S K H"]

    block = 128
    heads_axis = 2
    joined = True

    @classmethod
    def lay_out(cls, k, v):
        return cls(_pad(k, cls.block), _pad(v, cls.block))

    @property
    def length(self):
        return self.keys.shape[1]

    @property
    def heads(self):
        return self.keys.shape[2]

    def resize(self, length):
        return type(self)(*(_fit(a, 1, length) for a in self))

    def append(self, k, v, position):
        return type(self)(*(_append(a, new, position) for a, new in zip(self, (k, v), strict=True)))

    def attend(self, q, position, mesh=None, *, window=None, softcap=None):
        rows, _, heads, size = self.keys.shape
        q = q.reshape(rows, heads, -1, size)
        scores = jnp.einsum("BKGH,BSKH->BKGS", q, self.keys, preferred_element_type=jnp.float32) * size**-0.5
        weights = _softmax(scores, position, window, softcap).astype(self.values.dtype)
        return jnp.einsum("BKGS,BSKH->BKGH", weights, self.values).reshape(rows, -1, size)


class Cudnn(Rows):
    """The same arrays, read by cuDNN's fused attention, which is told how many positions of each row are live."""

    def attend(self, q, position, mesh=None, *, window=None, softcap=None):
        if window is not None:  # the kernel takes no window that ends at each row's own position
            return super().attend(q, position, mesh, window=window)

        def local(q, keys, values, lengths):
            kernel = dict(key_value_seq_lengths=lengths, implementation="cudnn")
            return jax.nn.dot_product_attention(q[:, None], keys, values, **kernel)[:, 0]

        return _on_each_device(local, mesh, self, q, position)


class Ragged(NamedTuple):
    """Keys and values of a position in turns, as JAX's ragged paged attention for TPUs reads them; a page is a block."""

    pairs: Float[Array, "B S 2*K H"]

    block = 128
    heads_axis = 2
    joined = True

    @classmethod
    def lay_out(cls, k, v):
        return cls(_pad(_in_turns(k, v), cls.block))

    @property
    def length(self):
        return self.pairs.shape[1]

    @property
    def heads(self):
        return self.pairs.shape[2] // 2

    def resize(self, length):
        return Ragged(_fit(self.pairs, 1, length))

    def append(self, k, v, position):
        return Ragged(_append(self.pairs, _in_turns(k, v), position))

    def attend(self, q, position, mesh=None, *, window=None, softcap=None):
        from jax.experimental.pallas.ops.tpu import ragged_paged_attention as kernel

        def local(q, pairs, lengths):
            rows, length, heads, size = pairs.shape
            pages = pairs.reshape(-1, self.block, heads, size)
            return kernel.ragged_paged_attention(
                q, pages, lengths,
                jnp.arange(len(pages), dtype=jnp.int32).reshape(rows, -1),  # a row's pages follow each other
                jnp.arange(rows + 1, dtype=jnp.int32),  # one query per row
                jnp.array([rows], jnp.int32),
                sm_scale=size**-0.5,
                sliding_window=window,
                soft_cap=softcap,
                num_kv_pages_per_block=min(_PAGES, length // self.block),
                num_queries_per_block=min(8, rows),
                vmem_limit_bytes=_VMEM,
            )  # fmt: skip

        return _on_each_device(local, mesh, self, q, position)


Layer = Blocks | Rows | Cudnn | Ragged
Cache = list[Layer]

LAYOUTS = {"blocks": Blocks, "xla": Rows, "cudnn": Cudnn, "ragged": Ragged}


def choose_layout(name: str, architecture: Architecture, platform: str, runs_cudnn: bool) -> str:
    """Returns the layout to use, a name of `LAYOUTS`: the given one, or for "auto" the one that suits the devices.

    Args:
      name: a name of `LAYOUTS`, or "auto".
      architecture: the policy's architecture.
      platform, runs_cudnn: of the devices, see `platforms`.

    Raises:
      ValueError: the given one cannot run; says what it needs.
    """
    ragged = {
        "a TPU": platform == "tpu",
        "architecture.dtype = bfloat16": architecture.dtype == "bfloat16",
        "architecture.head_dim, a multiple of 128": architecture.head_dim % 128 == 0,
    }
    missing = {
        "cudnn": cudnn_lacks(architecture, runs_cudnn),
        "ragged": [need for need, met in ragged.items() if not met],
    }
    if name == "auto":
        usable = [name for name, lacks in missing.items() if not lacks]
        return usable[0] if usable else {"tpu": "xla"}.get(platform, "blocks")
    if missing.get(name):
        raise ValueError(f"decode_attention = {name!r}: it needs {' and '.join(missing[name])}")
    return name


def round_up(length: int, layout: type[Layer]) -> int:
    """Returns a length rounded up to whole blocks of a layout."""
    return -(-length // layout.block) * layout.block


def spec(layer: Layer, rows: NamedSharding) -> PartitionSpec:
    """Returns how the arrays of a layer are split: rows as given, heads over `tensor` unless it does not divide them."""
    split = "tensor" if layer.heads % rows.mesh.shape["tensor"] == 0 else None
    return PartitionSpec(*rows.spec, *[None] * (layer.heads_axis - 1), split)


def shardings(cache: Cache, rows: NamedSharding) -> list:
    """Returns the sharding of each array of a cache.

    Args:
      cache: arrays or their shapes.
      rows: sharding of the axis of rows.
    """
    return [jax.tree.map(lambda _: NamedSharding(rows.mesh, spec(layer, rows)), layer) for layer in cache]  # noqa: B023


def _on_each_device(local, mesh, layer, q, position):
    """Runs `local(q, *arrays, lengths)` on each device's rows and heads."""
    lengths = jnp.minimum(position + 1, layer.length)
    if mesh is None:
        return local(q, *layer, lengths)
    cache = spec(layer, NamedSharding(mesh, ROWS))
    heads = PartitionSpec(*ROWS, cache[layer.heads_axis])
    specs = dict(in_specs=(heads, *[cache] * len(layer), ROWS), out_specs=heads, check_vma=False)
    return jax.shard_map(local, mesh=mesh, **specs)(q, *layer, lengths)


def _softmax(scores, position, window, softcap):
    """Returns the weights of the positions up to the given one, at most `window` of them, from scores [B, K, G, S]."""
    index = jnp.arange(scores.shape[-1])
    live = index <= position[:, None]
    if window is not None:
        live &= index > position[:, None] - window
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    return jax.nn.softmax(jnp.where(live[:, None, None, :], scores, jnp.finfo(jnp.float32).min), axis=-1)


def _in_turns(k, v):
    """Returns keys and values [..., K, H] as [..., 2 K, H]: the key of a head, its value, the key of the next."""
    return jnp.stack([k, v], axis=-2).reshape(*k.shape[:-2], 2 * k.shape[-2], k.shape[-1])


def _pad(x, block):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)))


def _fit(x, axis, size):
    """Pads or cuts an axis to a size."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, max(0, size - x.shape[axis]))
    return jax.lax.slice_in_dim(jnp.pad(x, padding), 0, size, axis=axis)


def _append(x, new, position):
    return x.at[jnp.arange(len(position)), position].set(new.astype(x.dtype), mode="drop")
