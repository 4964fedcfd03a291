"""Computes the least time that a case can take: the work that no implementation can avoid, over the machine's ceilings.

- Sampling: FLOPs of the prompts, with logits at their last position only; then, for every further token, one read of all weights
  and of the keys and values that are valid at that time, or its FLOPs where they take longer.
- Scoring: FLOPs of one forward pass with the logits of responses; a prompt that responses share is run once. Attention is causal:
  a token attends to half of its prompt or response on average, and a response to its whole prompt.
- Learning: FLOPs of three forward passes, as a backward pass costs two; recomputation and the optimiser are not counted.

Tensors are taken to be in the compute dtype.
"""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from amrsd_jax.policy import Architecture


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """The rates that a device reaches on the simplest programs.

    Attributes:
      copy: bytes read and written per second in a copy of one large array.
      matmul: FLOPs per second of a large square product in the compute dtype.
    """

    copy: float
    matmul: float


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of consecutive phases, each of which overlaps its memory traffic with its arithmetic (the roofline).

    Attributes:
      bytes: bytes read in each phase.
      flops: FLOPs of each phase; a multiplication and an addition count as two.
    """

    bytes: Float[np.ndarray, " phases"]
    flops: Float[np.ndarray, " phases"]

    def floor(self, ceilings: Ceilings) -> float:
        """Returns the least seconds."""
        return float(np.maximum(self.bytes / ceilings.copy, self.flops / ceilings.matmul).sum())


def sampling(c: Architecture, rows: int, prompt: int, new: int) -> Work:
    """Returns the work of `new` tokens for each of `rows` prompts; the first of them comes with the prefill."""
    return _sampling(c, rows, prompt, rows, prompt + np.arange(1, new))


def long_tail(c: Architecture, rows: int, slots: int, prompt: int, tokens: int) -> Work:
    """Returns the work of responses with `tokens` tokens in total, if all `slots` were always busy."""
    steps = -(-(tokens - rows) // slots)
    return _sampling(c, rows, prompt, slots, np.full(steps, prompt + tokens / rows / 2))


def scoring(c: Architecture, prompt: int, responses: Iterable[int], group: int = 1) -> Work:
    """Returns the work of scoring responses without padding, of which `group` follow one prompt of `prompt` tokens."""
    own = c.forward_flops(prompt, prompt / 2) - 2 * c.vocab_size * c.width * prompt
    flops = sum(own / group + c.forward_flops(length, prompt + length / 2) for length in map(int, responses))
    return Work(np.array([_weights(c)]), np.array([flops]))


def learning(c: Architecture, prompt: int, responses: Iterable[int], group: int = 1) -> Work:
    """Returns the work of one update on responses, as `scoring` counts them."""
    forward = scoring(c, prompt, responses, group)
    return Work(3 * forward.bytes, 3 * forward.flops)


def _sampling(c: Architecture, rows: int, prompt: int, slots: int, context: Float[np.ndarray, " steps"]) -> Work:
    """Returns the work of a prefill of all rows, then of decode steps of `slots` rows with `context` tokens each."""
    unread = 2 * c.vocab_size * c.width * rows * (prompt - 1)  # logits inside the prompts, which are not needed
    prefill = c.forward_flops(rows * prompt, prompt / 2) - unread
    position = 2 * c.layers * c.kv_heads * c.head_dim * jnp.dtype(c.dtype).itemsize  # its keys and values
    return Work(
        np.array([_weights(c), *(_weights(c) + slots * context * position)]),
        np.array([prefill, *(c.forward_flops(slots, float(length)) for length in context)]),
    )


def _weights(c: Architecture) -> int:
    """Returns the bytes of weights that a pass reads; it reads only a few rows of an untied embedding."""
    return (c.parameters() - (not c.tied) * c.vocab_size * c.width) * jnp.dtype(c.dtype).itemsize
