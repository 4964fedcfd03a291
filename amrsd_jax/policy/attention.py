"""Computes causal attention over whole rows, with a choice of kernel.

`xla` runs on every platform. It processes the queries of a row in blocks, so scores are [BLOCK, T] and never [T, T]. A row is
cut into PARTS; the queries of a part are multiplied only with the keys up to its end, which skips most of what the causal mask
discards. `cudnn` is NVIDIA's fused kernel, `splash` JAX's kernel for TPUs; rows are padded at the end to the widths that these
take, which a causal mask hides.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Integer

from amrsd_jax.platforms import ROWS, platform, row_devices
from amrsd_jax.policy.architecture import Architecture

BLOCK = 128  # queries per block: their scores fit into a CPU's cache
PARTS = 4  # most parts per row; each part is a loop over blocks
LANES = 128  # width of a TPU's vector unit; splash needs multiples of it as head size
TILE = 512  # queries and keys per splash block
# Checkpoint name of the output of `xla`, which remat saves; the fused kernels are recomputed anyway.
OUTPUT = "attention"


def cudnn_lacks(architecture: Architecture, runs_cudnn: bool) -> list[str]:
    """Returns what attention by cuDNN needs that an architecture or the devices lack, see `platforms.runs_cudnn`."""
    size = architecture.head_dim
    needs = {
        "a GPU of compute capability 8.0": runs_cudnn,
        "architecture.dtype = bfloat16": architecture.dtype == "bfloat16",
        "architecture.head_dim of at most 128, a multiple of 8": size % 8 == 0 and size <= 128,
        "no architecture.attention_softcap": not architecture.attention_softcap,
    }
    return [need for need, met in needs.items() if not met]


def choose_backend(backend: str, architecture: Architecture, platform: str, runs_cudnn: bool) -> str:
    """Returns the backend to use: the given one, or for "auto" the fused kernel that can run and else `xla`.

    Args:
      backend: "auto", "xla", "cudnn" or "splash".
      architecture: the policy's architecture.
      platform, runs_cudnn: of the devices, see `platforms`.

    Raises:
      ValueError: the given backend cannot run; says what it needs.
    """
    splash = {
        "a TPU": platform == "tpu",
        f"architecture.head_dim, a multiple of {LANES}": architecture.head_dim % LANES == 0,
    }
    missing = {
        "cudnn": cudnn_lacks(architecture, runs_cudnn),
        "splash": [need for need, met in splash.items() if not met],
        "xla": [],
    }
    if backend == "auto":
        return next(name for name, lacks in missing.items() if not lacks)
    if missing[backend]:
        raise ValueError(f"attention = {backend!r}: it needs {' and '.join(missing[backend])}")
    return backend


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Integer[Array, "B T"] | None = None,
    *,
    window: int | None = None,
    softcap: float | None = None,
    backend: str = "xla",
    mesh: Mesh | None = None,
) -> Float[Array, "B T N H"]:
    """Returns softmax(q k / sqrt(H)) v with a causal mask; the softmax is in float32.

    Args:
      q, k, v: queries, keys and values; each group of N / K query heads shares a key head and a value head.
      segments: document number of each token; tokens attend only within their document. `cudnn` leaves such rows to `xla`.
      window: number of positions that a token attends to, the last ones up to its own; None for all.
      softcap: c of c tanh(scores / c), None for scores as they are.
      backend: a result of `choose_backend`. `splash` leaves rows shorter than TILE to `xla`.
      mesh: mesh that rows and heads are split over; `splash` needs it because the compiler cannot partition that kernel.
    """
    length = q.shape[1]
    if backend == "splash" and length >= TILE:
        return _splash(q, k, v, segments, mesh, window, softcap)
    if backend == "cudnn" and segments is None:
        q, k, v = (_pad(a, kernel_width(backend, length)) for a in (q, k, v))
        local = dict(is_causal=True, local_window_size=window and (window - 1, 0), implementation="cudnn")
        return jax.nn.dot_product_attention(q, k, v, **local)[:, :length]
    step = -(-q.shape[1] // (PARTS * BLOCK)) * BLOCK
    parts = []
    for start in range(0, length, step):
        seen = slice(max(0, start + 1 - window) if window else 0, start + step)
        ids = None if segments is None else segments[:, seen]
        parts.append(_part(q[:, start : start + step], k[:, seen], v[:, seen], ids, window, softcap))
    return checkpoint_name(jnp.concatenate(parts, axis=1), OUTPUT)


def attention_after(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    before_k: Float[Array, "B P K H"],
    before_v: Float[Array, "B P K H"],
    length: Integer[Array, " B"],
) -> Float[Array, "B T N H"]:
    """Returns `attention` of T tokens that follow `length` others, whose keys and values are given right-padded.

    All scores [T, P + T] exist at one time.
    """
    t = q.shape[1]
    earlier = jnp.broadcast_to(
        (jnp.arange(before_k.shape[1]) < length[:, None])[:, None], (len(q), t, before_k.shape[1])
    )
    own = jnp.broadcast_to(jnp.tri(t, dtype=bool), (len(q), t, t))
    keys, values = jnp.concatenate([before_k, k], axis=1), jnp.concatenate([before_v, v], axis=1)
    mask = jnp.concatenate([earlier, own], axis=2)[:, None]
    return checkpoint_name(jax.nn.dot_product_attention(q, keys, values, mask=mask, implementation="xla"), OUTPUT)


def kernel_width(backend: str, length: int) -> int:
    """Returns the width that a row is padded to: cuDNN's backward pass takes even widths, `splash` whole tiles."""
    multiple = {"cudnn": 2, "splash": TILE}.get(backend, 1)
    return -(-length // multiple) * multiple


def _pad(a, width: int):
    return jnp.pad(a, ((0, 0), (0, width - a.shape[1])) + ((0, 0),) * (a.ndim - 2))


def _part(q, k, v, segments, window, softcap):
    """Computes the attention of t queries of a row [B, t, N, H] over s keys and values [B, s, K, H] that end with theirs."""
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
        if window is not None:
            mask &= keys > index[:, None] - window
        if segments is not None:
            segment = jnp.take(segments, index, axis=1, mode="clip")
            mask &= (segment[:, :, None] == segments[:, None])[:, None, None]
        folded = q.reshape(rows, groups, -1, size)  # one matrix product per group of heads
        scores = jnp.einsum("BKQH,BSKH->BKQS", folded, k, preferred_element_type=jnp.float32) * size**-0.5
        if softcap is not None:
            scores = softcap * jnp.tanh(scores / softcap)
        scores = jnp.where(mask, scores.reshape(*q.shape[:4], -1), jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.reshape(*folded.shape[:3], -1).astype(v.dtype)
        mixed = jnp.einsum("BKQS,BSKH->BKQH", weights, v, preferred_element_type=jnp.float32)
        return (mixed.reshape(q.shape) / total).astype(v.dtype)  # smaller than the weights, which need not be divided

    mixed = jax.lax.map(attend_block, (q, first + block * jnp.arange(count)))
    return mixed.transpose(1, 0, 4, 2, 3, 5).reshape(rows, count * block, heads, size)[:, :length]


def _splash(q, k, v, segments, mesh: Mesh | None, window: int | None, softcap: float | None):
    """Runs the splash kernel on each device's rows and heads, interpreted where the devices are no TPUs."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, width = q.shape[1], kernel_width("splash", q.shape[1])
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = splash.BlockSizes(**{f"block_{name}": TILE for name in names})
    interpret = platform(mesh) != "tpu"

    def local(q, k, v, segments):
        mask = splash.CausalMask((width, width))
        if window is not None:
            mask = splash.LocalMask((width, width), (window - 1, 0), 0)
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([mask] * q.shape[2]), block_sizes=sizes, head_shards=1, q_seq_shards=1,
            attn_logits_soft_cap=softcap, interpret=interpret,
        )  # fmt: skip
        q, k, v = (_pad(a, width).swapaxes(1, 2) for a in (q * q.shape[-1] ** -0.5, k, v))
        ids = None if segments is None else splash.SegmentIds(*[_pad(segments, width)] * 2)
        return jax.vmap(kernel)(q, k, v, ids).swapaxes(1, 2)[:, :length]

    if mesh is None:
        return local(q, k, v, segments)
    (rows,) = PartitionSpec(None) if len(q) % row_devices(mesh) else ROWS
    split = "tensor" if k.shape[2] % mesh.shape["tensor"] == 0 else None
    qkv, ids = PartitionSpec(rows, None, split, None), PartitionSpec(rows, None)
    specs = dict(in_specs=(qkv, qkv, qkv, ids), out_specs=qkv, check_vma=False)
    return jax.shard_map(local, mesh=mesh, **specs)(q, k, v, segments)
