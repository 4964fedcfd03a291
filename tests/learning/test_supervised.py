"""Supervised learning: how documents are packed, and when the result is refused."""

import numpy as np
import pytest

from amrsd_jax.learning.supervised import Document, check_finite, pack
from amrsd_jax.sections import ConfigError


def test_a_warm_up_that_is_not_finite_is_refused():
    check_finite([4.8, np.nan, 0.2], 2, "warmup.learning_rate = 0.5")
    for losses, applied in (([4.8, np.nan, np.nan], 1), ([4.8, np.inf], 2), ([4.8] * 4, 0)):
        with pytest.raises(
            ConfigError, match=f"warmup.learning_rate = 0.5.* from 4.8 .*{applied} of {len(losses)} updates"
        ):
            check_finite(losses, applied, "warmup.learning_rate = 0.5")


def test_packing_by_hand():
    packed = pack([Document([1, 2], [3]), Document([4], [5, 6]), Document([7], [8])], 5)
    assert packed.tokens.tolist() == [[1, 2, 3, 7, 8], [4, 5, 6, 0, 0]]
    assert packed.segments.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]]
    assert packed.loss_mask.tolist() == [[0, 0, 1, 0, 1], [0, 1, 1, 0, 0]]


def test_packing_loses_nothing():
    generator = np.random.default_rng(0)
    documents = [Document([9] * int(a), [5] * int(b)) for a, b in generator.integers(1, 20, (200, 2))]
    packed = pack(documents, 48)
    assert packed.loss_mask.sum() == sum(len(completion) for _, completion in documents)
    assert (packed.segments > 0).sum() == sum(document.size for document in documents)
    assert (packed.segments > 0).mean() > 0.85
