"""Makes the batches of one training step from rollouts and credit."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer, PyTree

from amrsd_jax import lengths
from amrsd_jax.records import Batch, Contexts, Credit, Rollouts


def make_batches(
    rollouts: Rollouts,
    credit: Credit,
    old_logprobs: Float[np.ndarray, "N T"] | None = None,
    reference_logprobs: Float[np.ndarray, "N T"] | None = None,
    contexts: Contexts | None = None,
    *,
    minibatches: int,
    mask_truncated: bool,
) -> Iterator[Batch]:
    """Yields one batch per optimiser update; the rows are split in their order.

    Args:
      old_logprobs: the trainer's log-probabilities of the responses; None takes the sampler's.
      reference_logprobs: those of the reference policy; None without a KL penalty.
      contexts: the teacher's prompts, if the rule distils; a row without one gets a prompt of one padding token.
      minibatches: number of updates.
      mask_truncated: leave out responses that reached the length limit.
    """
    mask = rollouts.trained(mask_truncated)
    whole = Batch(
        prompt=rollouts.prompt,
        prompt_length=rollouts.prompt_length,
        response=rollouts.response,
        mask=mask,
        sampler_logprobs=rollouts.sampler_logprobs,
        old_logprobs=rollouts.sampler_logprobs if old_logprobs is None else old_logprobs,
        reference_logprobs=np.zeros_like(mask) if reference_logprobs is None else reference_logprobs,
        token_advantage=credit.token_advantage,
        **(_teacher_prompts(contexts, len(mask)) if contexts is not None else {}),
    )
    size = len(mask) // minibatches
    for start in range(0, len(mask), size):
        yield jax.tree.map(lambda a, start=start: a[start : start + size], whole)


def micro_batches(
    batch: Batch, weights: PyTree, parts: int, *, skip: bool = False, share_prompts: bool = False
) -> Iterator[tuple[Batch, PyTree]]:
    """Yields the rows of an update in parts with equally many rows, the widest rows first.

    A part is as wide as its widest row, and a row as wide as the bucket of its length. Rows of one width stay in their order.

    Args:
      batch, weights: host values of all rows.
      parts: number of parts, a divisor of the number of rows.
      skip: leave out parts whose gradient is 0, because no row has credit or is distilled. Such rows come last, the narrowest
        of them first. One part is always yielded.
      share_prompts: give each part its different prompts, once each, and the rows' indices among them.
    """
    tokens, room = lengths.mask_lengths(batch.mask), batch.response.shape[1]
    widths = lengths.buckets(batch.prompt_length + tokens, batch.prompt.shape[1] + room)
    context_widths = None
    if batch.context is not None:
        context_widths = lengths.buckets(batch.context_length + tokens, batch.context.shape[1] + room)
    idle = skip & ~_has_gradient(batch)
    order = np.lexsort((np.where(idle, widths, -widths), idle))
    for i, rows in enumerate(np.split(order, parts)):
        if i and idle[rows].all():
            return
        width, context_width = (None if w is None else int(w[rows].max()) for w in (widths, context_widths))
        part, share = jax.tree.map(lambda a: a[rows, :width] if a.ndim > 1 else a[rows], (batch, weights))  # noqa: B023
        if context_widths is not None:
            part = part.replace(context=batch.context[rows, :context_width])
        fields = _shared_prompts(batch, rows) if share_prompts else {"width": width}
        yield part.replace(**fields, context_width=context_width), share


def _shared_prompts(batch: Batch, rows: Integer[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Returns the batch's fields for the different prompts of some rows, padded to a power of two with copies."""
    keys = np.concatenate([batch.prompt_length[rows, None], batch.prompt[rows]], axis=1)
    different, index = np.unique(keys, axis=0, return_inverse=True)
    padded = different[np.arange(1 << (len(different) - 1).bit_length()) % len(different)]
    longest = lengths.bucket(int(padded[:, 0].max()), batch.prompt.shape[1])
    return {
        "prompt": padded[:, 1 : 1 + longest], "prompt_length": padded[:, 0], "prompt_index": index.reshape(-1).astype(np.int32)
    }  # fmt: skip


def _has_gradient(batch: Batch) -> Bool[np.ndarray, " N"]:
    """Returns which rows have a token with credit, or one at which the teacher is distilled."""
    credited = np.any((batch.mask > 0) & (batch.token_advantage != 0), axis=1)
    return credited if batch.distilled is None else credited | ((batch.distilled > 0) & np.any(batch.mask > 0, axis=1))


def _teacher_prompts(contexts: Contexts, count: int) -> dict[str, np.ndarray]:
    """Returns the batch's fields for the teacher's prompts of all rows."""
    context = np.zeros((count, contexts.prompt.shape[1]), np.int32)
    length, distilled = np.ones(count, np.int32), np.zeros(count, np.float32)
    context[contexts.rows], length[contexts.rows] = contexts.prompt, contexts.prompt_length
    distilled[contexts.rows] = 1
    return {"context": context, "context_length": length, "distilled": distilled}
