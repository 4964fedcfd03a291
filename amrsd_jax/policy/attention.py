"""Computes causal attention over whole rows, with a choice of kernel.

`xla` runs on every platform. It processes the queries of a row in blocks, so scores are [BLOCK, T] and never [T, T]. A row is
cut into PARTS; the queries of a part are multiplied only with the keys up to its end, which skips most of what the causal mask
discards. `cudnn` is NVIDIA's fused kernel, `splash` JAX's kernel for TPUs.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy.architecture import Architecture

BACKENDS = ("auto", "xla", "cudnn", "splash")
BLOCK = 128  # queries per block: their scores fit into a CPU's cache
PARTS = 4  # most parts per row; each part is a loop over blocks
LANES = 128  # width of a TPU's vector unit; splash needs multiples of it as row length and head size
TILE = 512  # most queries or keys per splash block
# Checkpoint name of the output of `xla`, which remat saves; the fused kernels are recomputed anyway.
OUTPUT = "attention"


def choose_backend(backend: str, architecture: Architecture, platform: str) -> str:
    """Returns the backend to use: the given one, or for "auto" `cudnn` where it can run and else `xla`.

    "auto" never selects `splash`, which has not been measured yet.

    Args:
      backend: a name of `BACKENDS`.
      architecture: the policy's architecture.
      platform: "cpu", "gpu" or "tpu".

    Raises:
      ValueError: the given backend cannot run; says what it needs.
    """
    size = architecture.head_dim
    unmet = {
        "xla": {},
        "cudnn": {
            "a GPU": platform != "gpu",
            "architecture.dtype = bfloat16": architecture.dtype != "bfloat16",
            "architecture.head_dim of at most 128, a multiple of 8": size % 8 or size > 128,
        },
        "splash": {"a TPU": platform != "tpu", f"architecture.head_dim, a multiple of {LANES}": size % LANES},
    }
    missing = {name: [need for need, lacking in needs.items() if lacking] for name, needs in unmet.items()}
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
    """Returns softmax(q k / sqrt(H)) v with a causal mask; the softmax is in float32.

    Args:
      q, k, v: queries, keys and values; each group of N / K query heads shares a key head and a value head.
      segments: document number of each token; tokens attend only within their document. `cudnn` leaves such rows to `xla`.
      backend: a result of `choose_backend`.
      mesh: mesh that rows and heads are split over; `splash` needs it because the compiler cannot partition that kernel.
    """
    if backend == "splash":
        return _splash(q, k, v, segments, mesh)
    if backend == "cudnn" and segments is None:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
    step = -(-q.shape[1] // (PARTS * BLOCK)) * BLOCK
    parts = [
        _part(q[:, start : start + step], k[:, : start + step], v[:, : start + step], segments)
        for start in range(0, q.shape[1], step)
    ]
    return checkpoint_name(jnp.concatenate(parts, axis=1), OUTPUT)


def _part(q, k, v, segments):
    """Computes the attention of the last t queries of a row [B, t, N, H] over its first s keys and values [B, s, K, H]."""
    rows, length, heads, size = q.shape
    block, groups = min(BLOCK, length), k.shape[2]
    count, first = -(-length // block), k.shape[1] - length
    q = jnp.pad(q, ((0, 0), (0, count * block - length), (0, 0), (0, 0)))
    q = q.reshape(rows, count, block, groups, -1, size).transpose(1, 0, 3, 4, 2, 5)
    keys = jnp.arange(k.shape[1])

    @functools.partial(jax.checkpoint, prevent_cse=False)  # otherwise all scores are kept for the backward pass
    def attend_block(inputs):
        q, start = inputs  # [B, K, N / K, block, H]
        index = start + jnp.arange(block)
        mask = keys <= index[:, None]
        if segments is not None:
            segment = jnp.take(segments, index, axis=1, mode="clip")
            mask &= (segment[:, :, None] == segments[:, None, : keys.size])[:, None, None]
        folded = q.reshape(rows, groups, -1, size)  # one matrix product per group of heads
        scores = jnp.einsum("BKQH,BSKH->BKQS", folded, k, preferred_element_type=jnp.float32) * size**-0.5
        scores = jnp.where(mask, scores.reshape(*q.shape[:4], -1), jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.reshape(*folded.shape[:3], -1).astype(v.dtype)
        mixed = jnp.einsum("BKQS,BSKH->BKQH", weights, v, preferred_element_type=jnp.float32)
        return (mixed.reshape(q.shape) / total).astype(v.dtype)  # smaller than the weights, which need not be divided

    mixed = jax.lax.map(attend_block, (q, first + block * jnp.arange(count)))
    return mixed.transpose(1, 0, 4, 2, 3, 5).reshape(rows, count * block, heads, size)[:, :length]


def _splash(q, k, v, segments, mesh: Mesh | None):
    """Runs the splash kernel on each device's rows and heads; rows are padded at the end, which a causal mask hides."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length = q.shape[1]
    padded = -(-length // LANES) * LANES
    size = math.gcd(padded, TILE)
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
    qkv, ids = PartitionSpec(rows, None, split, None), PartitionSpec(rows, None)
    specs = dict(in_specs=(qkv, qkv, qkv, ids), out_specs=qkv, check_vma=False)
    return jax.shard_map(local, mesh=mesh, **specs)(q, k, v, segments)
