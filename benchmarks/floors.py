"""The least time that a task can take on a machine: what no implementation can do without, over the machine's ceilings.

- Sampling: FLOPs of the prompts, with logits at their last position only; then for every further token all weights and the
  keys and values that are valid at that time, read once, or its FLOPs where they take longer.
- Scoring: FLOPs of one forward pass with all logits. Causal, so a token attends to half its row on average.
- Learning: FLOPs of one forward pass and two backward; nothing recomputed, the optimiser for nothing.

Tensors are in the compute dtype, as a device that does these things at speed has them.
"""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from amrsd_jax.policy import Architecture


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device reaches on the simplest program of each kind.

    Attributes:
      copy: bytes read and written a second, copying one large array.
      matmul: FLOPs a second of a large square product in the compute dtype.
    """

    copy: float
    matmul: float


@dataclasses.dataclass(frozen=True)
class Work:
    """Phases that follow each other; each moves its bytes while it multiplies (the roofline).

    Attributes:
      bytes: read [phases].
      flops: multiply and add counted as two [phases].
    """

    bytes: Float[np.ndarray, " phases"]
    flops: Float[np.ndarray, " phases"]

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds."""
        return float(np.maximum(self.bytes / ceilings.copy, self.flops / ceilings.matmul).sum())


def sampling(c: Architecture, rows: int, prompt: int, new: int) -> Work:
    """Prompts of one length, `new` tokens from each; the first of them comes with the prompt."""
    return _sampling(c, rows, prompt, rows, prompt + np.arange(1, new))


def long_tail(c: Architecture, rows: int, slots: int, prompt: int, tokens: int) -> Work:
    """Responses of `tokens` tokens in all, as if every one of `slots` rows in flight were always busy."""
    steps = -(-(tokens - rows) // slots)
    return _sampling(c, rows, prompt, slots, np.full(steps, prompt + tokens / rows / 2))


def scoring(c: Architecture, lengths: Iterable[int]) -> Work:
    """Whole rows, without their padding."""
    return Work(np.array([_weights(c)]), np.array([sum(c.forward_flops(length, length / 2) for length in lengths)]))


def learning(c: Architecture, lengths: Iterable[int]) -> Work:
    """One update on whole rows, without their padding."""
    forward = scoring(c, lengths)
    return Work(3 * forward.bytes, 3 * forward.flops)


def _sampling(c: Architecture, rows: int, prompt: int, slots: int, context: Float[np.ndarray, " steps"]) -> Work:
    """Prefill of all rows, then steps of `slots` rows that have `context` tokens each."""
    unread = 2 * c.vocab_size * c.width * rows * (prompt - 1)  # logits inside the prompts
    prefill = c.forward_flops(rows * prompt, prompt / 2) - unread
    position = 2 * c.layers * c.kv_heads * c.head_dim * jnp.dtype(c.dtype).itemsize  # its keys and values
    return Work(
        np.array([_weights(c), *(_weights(c) + slots * context * position)]),
        np.array([prefill, *(c.forward_flops(slots, float(length)) for length in context)]),
    )


def _weights(c: Architecture) -> int:
    """Bytes that a pass reads: all but an embedding that is not the head, of which it reads a few rows."""
    return (c.parameters() - (not c.tied) * c.vocab_size * c.width) * jnp.dtype(c.dtype).itemsize
