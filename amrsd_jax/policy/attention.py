"""Causal attention over whole rows, forward and backward, and the choice of who computes it.

`xla` runs everywhere. It takes the queries of a row block by block: scores are [BLOCK, T] and not [T, T]. The row is cut into
PARTS, whose queries see the keys up to their part's end, so most of what a causal row never uses is not computed.
`cudnn` is NVIDIA's fused kernel, `splash` JAX's own for TPUs.
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
BLOCK = 128  # queries whose scores exist at one time: on a CPU they stay in its cache
PARTS = 4  # of a row of several blocks, each a loop of its own
LANES = 128  # of a TPU's vector unit: splash takes rows and heads in multiples
TILE = 512  # queries or keys that splash takes at a time, at most
MIXED = "attention"  # by this name remat keeps what `xla` gives; a kernel would have to run again all the same


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
    step = -(-q.shape[1] // (PARTS * BLOCK)) * BLOCK
    parts = [
        _part(q[:, start : start + step], k[:, : start + step], v[:, : start + step], segments)
        for start in range(0, q.shape[1], step)
    ]
    return checkpoint_name(jnp.concatenate(parts, axis=1), MIXED)


def _part(q, k, v, segments):
    """The last queries of a row [B, t, N, H] over its keys and values so far [B, s, K, H], block by block."""
    rows, length, heads, size = q.shape
    block, groups = min(BLOCK, length), k.shape[2]
    count, first = -(-length // block), k.shape[1] - length
    q = jnp.pad(q, ((0, 0), (0, count * block - length), (0, 0), (0, 0)))
    q = q.reshape(rows, count, block, groups, -1, size).transpose(1, 0, 3, 4, 2, 5)  # heads of a group side by side
    keys = jnp.arange(k.shape[1])

    @functools.partial(jax.checkpoint, prevent_cse=False)  # or the backward pass would keep all scores
    def mix(inputs):
        q, start = inputs  # [B, K, N / K, block, H]
        index = start + jnp.arange(block)
        mask = keys <= index[:, None]
        if segments is not None:
            own = jnp.take(segments, index, axis=1, mode="clip")
            mask &= (own[:, :, None] == segments[:, None, : keys.size])[:, None, None]
        folded = q.reshape(rows, groups, -1, size)  # one product a group
        scores = jnp.einsum("BKQH,BSKH->BKQS", folded, k, preferred_element_type=jnp.float32) * size**-0.5
        scores = jnp.where(mask, scores.reshape(*q.shape[:4], -1), jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.reshape(*folded.shape[:3], -1).astype(v.dtype)
        mixed = jnp.einsum("BKQS,BSKH->BKQH", weights, v, preferred_element_type=jnp.float32)
        return (mixed.reshape(q.shape) / total).astype(v.dtype)  # fewer than the weights to divide

    mixed = jax.lax.map(mix, (q, first + block * jnp.arange(count)))
    return mixed.transpose(1, 0, 4, 2, 3, 5).reshape(rows, count * block, heads, size)[:, :length]


def _splash(q, k, v, segments, mesh: Mesh | None):
    """Each device takes its rows and heads to the kernel; rows are padded behind, where a causal row does not look."""
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
    whole, ids = PartitionSpec(rows, None, split, None), PartitionSpec(rows, None)
    where = dict(in_specs=(whole, whole, whole, ids), out_specs=whole, check_vma=False)
    return jax.shard_map(local, mesh=mesh, **where)(q, k, v, segments)
