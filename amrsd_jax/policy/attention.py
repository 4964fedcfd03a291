"""Causal attention over whole rows, forward and backward, and the choice of who computes it.

`xla` runs everywhere. It takes the queries of a long row block by block: scores are [BLOCK, T] and not [T, T]. The row is cut
into PARTS, whose queries see the keys up to their part's end, so most of what a causal row never uses is not computed.
`cudnn` is NVIDIA's fused kernel.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy.architecture import Architecture

BACKENDS = ("auto", "xla", "cudnn")
BLOCK = 512  # queries whose scores exist at one time
PARTS = 4  # of a long row, each a loop of its own


def choose(backend: str, architecture: Architecture, platform: str) -> str:
    """The backend that `auto` stands for, or the given one.

    Args:
      backend: of `BACKENDS`.
      platform: of the devices: "cpu", "gpu", "tpu".

    Raises:
      ValueError: the given one cannot serve, and why.
    """
    lacks = {
        "a GPU": platform != "gpu",
        "architecture.dtype = bfloat16": architecture.dtype != "bfloat16",
        "architecture.head_dim of at most 128, a multiple of 8": architecture.head_dim % 8
        or architecture.head_dim > 128,
    }
    missing = [name for name, lack in lacks.items() if lack]
    if backend == "auto":
        return "xla" if missing else "cudnn"
    if backend == "cudnn" and missing:
        raise ValueError(f"attention = 'cudnn': it needs {' and '.join(missing)}")
    return backend


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: Integer[Array, "B T"] | None = None,
    *,
    backend: str = "xla",
) -> Float[Array, "B T N H"]:
    """softmax(q k / sqrt(H)) v, every token over itself and those before it; softmax in float32.

    Args:
      q, k, v: N query heads in groups of N / K that share a key and a value head.
      segments: a number per token; tokens attend within their own segment. Such rows are for `xla`, whatever the backend.
      backend: a result of `choose`.
    """
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
