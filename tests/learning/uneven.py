"""A batch whose rows have very different lengths."""

import numpy as np

from amrsd_jax.records import Batch

N, P, T, R = 8, 8, 54, 40


def uneven_batch(context: bool = False) -> Batch:
    """Rows of 11, 55, 6, 12, 27, 20, 2 and 13 tokens; with their contexts of 43, 55, 3, 29, 30, 21, 4 and 7, one missing.

    With buckets of 4, 8, 16, 32 and P + T = 62 (or 64 for contexts), widths are 16, 62, 8, 16, 32, 32, 4 and 16.
    """
    generator = np.random.default_rng(2)
    prompt_length, answered = np.array([8, 1, 5, 3, 2, 8, 1, 7]), np.array([3, 54, 1, 9, 25, 12, 1, 6])
    mask = (np.arange(T) < answered[:, None]).astype(np.float32)

    def around(centre):
        return (centre + 0.3 * generator.normal(size=mask.shape)).astype(np.float32) * mask

    def tokens(width):
        return generator.integers(4, 48, (N, width), dtype=np.int32)

    batch = Batch(
        prompt=tokens(P), prompt_length=prompt_length.astype(np.int32), response=tokens(T), mask=mask,
        sampler_logprobs=around(-4.0), old_logprobs=around(-4.0), reference_logprobs=around(-4.0),
        token_advantage=around(0.0),
    )  # fmt: skip
    if not context:
        return batch
    return batch.replace(
        context=tokens(R),
        context_length=np.array([40, 1, 2, 20, 5, 9, 3, 1], np.int32),
        distilled=np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32),
    )


def with_credit(batch: Batch, rows) -> Batch:
    """Returns the batch with credit on some rows only."""
    return batch.replace(token_advantage=batch.token_advantage * np.isin(np.arange(N), rows)[:, None])
