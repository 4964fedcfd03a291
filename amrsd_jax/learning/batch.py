"""From rollouts and credit to the batches of one training step."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float

from amrsd_jax.records import Batch, Credit, Rollouts


def make_batches(
    rollouts: Rollouts,
    credit: Credit,
    logp_old: Float[np.ndarray, "N T"] | None,
    logp_reference: Float[np.ndarray, "N T"] | None,
    *,
    minibatches: int,
    mask_truncated: bool,
) -> Iterator[Batch]:
    """Splits the rows, prompt by prompt in their order, into one batch per optimiser update.

    Args:
      logp_old: the trainer's own log-probabilities of the responses, or None to take the sampler's.
      logp_reference: those of the reference policy, or None without a KL penalty.
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
    )
    size = len(mask) // minibatches
    for start in range(0, len(mask), size):
        yield jax.tree.map(lambda a, start=start: a[start : start + size], whole)
