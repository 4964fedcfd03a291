"""Causal attention over whole rows, forward and backward, and the choice of who computes it.

`xla` runs everywhere. It takes the queries of a long row block by block: scores are [BLOCK, T] and not [T, T]. The row is cut
into PARTS, whose queries see the keys up to their part's end, so most of what a causal row never uses is not computed.
`cudnn` is NVIDIA's fused kernel, `splash` JAX's own for TPUs.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy.architecture import Architecture

BACKENDS = ("auto", "xla", "cudnn", "splash")
BLOCK = 512  # queries whose scores exist at one time
PARTS = 4  # of a long row, each a loop of its own
LANES = 128  # of a TPU's vector unit: splash takes rows and heads in multiples


def choose(backend: str, architecture: Architecture, platform: str) -> str:
    """The backend that `auto` stands for, or the given one. `splash` is taken only by name: it has not been measured yet.

    Args:
      backend: of `BACKENDS`.
      platform: of the devices: "cpu", "gpu", "tpu".

    Raises:
      ValueError: the given one cannot serve, and why.
    """
    size = architecture.head_dim
    lacks = {
        "xla": {},
        "cudnn": {
            "a GPU": platform != "gpu",
            "architecture.dtype = bfloat16": architecture.dtype != "bfloat16",
            "architecture.head_dim of at most 128, a multiple of 8": size % 8 or size > 128,
        },
        "splash": {"a TPU": platform != "tpu", f"architecture.head_dim, a multiple of {LANES}": size % LANES},
    }
    missing = {name: [what for what, lack in needs.items() if lack] for name, needs in lacks.items()}
    if backend == "auto":
        return "xla" if missing["cudnn"] else "cudnn"
    if missing[backend]:
        raise ValueError(f"attention = {backend!r}: it needs {' and '.join(missing[backend])}")
    return backend


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Integer[Array, "B T"] | None = None,
    *,
    backend: str = "xla",
    mesh: Mesh | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k / sqrt(H)) v, every token over itself and those before it; softmax in float32.

    Args:
      q, k, v: N query heads in groups of N / K that share a key and a value head.
      segments: a number per token; tokens attend within their own segment. `cudnn` leaves such rows to `xla`.
      backend: a result of `choose`.
      mesh: over which rows and heads are split; for `splash`, which the compiler cannot split.
    """
    if backend == "splash":
        return _splash(q, k, v, segments, mesh)
    if backend == "cudnn" and segments is None:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    length = q.shape[1]
    if length <= BLOCK:
        mask = None if segments is None else segments[:, None, :, None] == segments[:, None, None, :]  # [B, 1, T, S]
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True)
    step = -(-length // (PARTS * BLOCK)) * BLOCK
    parts = [
        _part(q[:, start : start + step], k[:, : start + step], v[:, : start + step], segments)
        for start in range(0, length, step)
    ]
    return jnp.concatenate(parts, axis=1)


def _part(q, k, v, segments):
    """The last queries of a row [B, t, N, H] over its keys and values so far [B, s, K, H], block by block."""
    rows, length = q.shape[:2]
    count, first = -(-length // BLOCK), k.shape[1] - length
    q = jnp.pad(q, ((0, 0), (0, count * BLOCK - length), (0, 0), (0, 0)))
    q = q.reshape(rows, count, BLOCK, *q.shape[2:]).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # or the backward pass would keep all scores
    def block(inputs):
        q, start = inputs
        index, keys = start + jnp.arange(BLOCK), jnp.arange(k.shape[1])
        mask = (keys <= index[:, None])[None, None]  # [1, 1, BLOCK, s]
        if segments is not None:
            own = jnp.take(segments, index, axis=1, mode="clip")
            mask &= (own[:, :, None] == segments[:, None, : k.shape[1]])[:, None]
        return jax.nn.dot_product_attention(q, k, v, mask=mask)

    mixed = jax.lax.map(block, (q, first + BLOCK * jnp.arange(count)))
    return mixed.swapaxes(0, 1).reshape(rows, count * BLOCK, *q.shape[3:])[:, :length]


def _splash(q, k, v, segments, mesh: Mesh | None):
    """Each device takes its rows and heads to the kernel; rows are padded behind, where a causal row does not look."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = q.shape[1]
    padded = -(-length // LANES) * LANES
    size = math.gcd(padded, BLOCK)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = splash.BlockSizes(**{f"block_{name}": size for name in names})
    segments = jnp.zeros(q.shape[:2], jnp.int32) if segments is None else segments

    def local(q, k, v, segments):
        mask = splash.MultiHeadMask([splash.CausalMask((padded, padded))] * q.shape[2])
        interpret = jax.default_backend() != "tpu"
        kernel = splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
        q, k, v = (
            jnp.pad(a, ((0, 0), (0, padded - length), (0, 0), (0, 0))).swapaxes(1, 2)
            for a in (q * q.shape[-1] ** -0.5, k, v)
        )
        ids = jnp.pad(segments, ((0, 0), (0, padded - length)))
        return jax.vmap(kernel)(q, k, v, splash.SegmentIds(ids, ids)).swapaxes(1, 2)[:, :length]

    if mesh is None:
        return local(q, k, v, segments)
    rows = ("data", "fsdp") if len(q) % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 else None
    split = "tensor" if k.shape[2] % mesh.shape["tensor"] == 0 else None
    whole, ids = PartitionSpec(rows, None, split, None), PartitionSpec(rows, None)
    where = dict(in_specs=(whole, whole, whole, ids), out_specs=whole, check_vma=False)
    return jax.shard_map(local, mesh=mesh, **where)(q, k, v, segments)
