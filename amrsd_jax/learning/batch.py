"""From rollouts and credit to the batches of one training step."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree

from amrsd_jax import lengths
from amrsd_jax.records import Batch, Contexts, Credit, Rollouts


def make_batches(
    rollouts: Rollouts,
    credit: Credit,
    logp_old: Float[np.ndarray, "N T"] | None,
    logp_reference: Float[np.ndarray, "N T"] | None,
    contexts: Contexts | None = None,
    *,
    minibatches: int,
    mask_truncated: bool,
) -> Iterator[Batch]:
    """Splits the rows, prompt by prompt in their order, into one batch per optimiser update.

    Args:
      logp_old: the trainer's own log-probabilities of the responses, or None to take the sampler's.
      logp_reference: those of the reference policy, or None without a KL penalty.
      contexts: what the teacher sees, if the rule distils; rows without one get a context of one padding token.
      minibatches: number of updates.
      mask_truncated: leave out responses that hit the length limit.
    """
    mask = rollouts.mask
    if mask_truncated:
        mask = mask * np.array([reason != "length" for reason in rollouts.finish_reason], np.float32)[:, None]
    whole = Batch(
        prompt=rollouts.prompt,
        prompt_length=rollouts.prompt_length,
        response=rollouts.response,
        mask=mask,
        logp_sampler=rollouts.logp,
        logp_old=rollouts.logp if logp_old is None else logp_old,
        logp_reference=np.zeros_like(mask) if logp_reference is None else logp_reference,
        token_advantage=credit.token_advantage,
        **(_shown(contexts, len(mask)) if contexts is not None else {}),
    )
    size = len(mask) // minibatches
    for start in range(0, len(mask), size):
        yield jax.tree.map(lambda a, start=start: a[start : start + size], whole)


def micro_batches(batch: Batch, weights: PyTree, pieces: int, *, skip: bool = False) -> Iterator[tuple[Batch, PyTree]]:
    """Cuts the rows of an update into pieces of equally many rows: the widest first, each as narrow as its widest row.

    A row is as wide as the bucket of its length; rows of one width stay in their order.

    Args:
      batch, weights: host values of all rows.
      pieces: how many; they divide the rows.
      skip: leave out pieces of rows that nothing is learned from, whose gradient is 0: rows without such come last, the
        narrowest of them first. One piece is always there.
    """
    tokens, room = lengths.reach(batch.mask), batch.response.shape[1]
    widths = lengths.buckets(batch.prompt_length + tokens, batch.prompt.shape[1] + room)
    shown = None
    if batch.context is not None:
        shown = lengths.buckets(batch.context_length + tokens, batch.context.shape[1] + room)
    idle = skip & ~_teaches(batch)
    order = np.lexsort((np.where(idle, widths, -widths), idle))
    for i, rows in enumerate(np.split(order, pieces)):
        if i and idle[rows].all():
            return
        width, context_width = (None if w is None else int(w[rows].max()) for w in (widths, shown))
        piece, share = jax.tree.map(lambda a: a[rows, :width] if a.ndim > 1 else a[rows], (batch, weights))  # noqa: B023
        if shown is not None:
            piece = piece.replace(context=batch.context[rows, :context_width])
        yield piece.replace(width=width, context_width=context_width), share


def _teaches(batch: Batch) -> Bool[np.ndarray, " N"]:
    """Whether a row has a token with credit, or one at which a teacher is distilled from."""
    credited = np.any((batch.mask > 0) & (batch.token_advantage != 0), axis=1)
    return credited if batch.distilled is None else credited | ((batch.distilled > 0) & np.any(batch.mask > 0, axis=1))


def _shown(contexts: Contexts, count: int) -> dict[str, np.ndarray]:
    """Teacher prompts of all rows."""
    context = np.zeros((count, contexts.context.shape[1]), np.int32)
    length, distilled = np.ones(count, np.int32), np.zeros(count, np.float32)
    context[contexts.rows], length[contexts.rows] = contexts.context, contexts.context_length
    distilled[contexts.rows] = 1
    return {"context": context, "context_length": length, "distilled": distilled}
