"""Batches of a step and their micro-batches, on the host, worked by hand."""

import jax
import numpy as np
import pytest

from amrsd_jax import lengths
from amrsd_jax.config import LossConfig
from amrsd_jax.learning.batch import make_batches, micro_batches
from amrsd_jax.learning.step import LossWeights, Objective, loss_weights
from amrsd_jax.records import Contexts, Credit
from amrsd_jax.scoring.divergence import Divergence
from tests.learning.uneven import N, uneven_batch, with_credit
from tests.tiny import tiny_rollouts

NUMBERS = LossWeights(np.arange(N)[:, None], None)  # in place of weights: the number of each row


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(lengths, "MIN_BUCKET", 4)


def cut(batch, parts, **options):
    """The rows and the width of each micro-batch."""
    return [(w.policy[:, 0].tolist(), b.width) for b, w in micro_batches(batch, NUMBERS, parts, **options)]


def test_micro_batches_are_cut_to_their_widest_row():
    batch = uneven_batch(context=True)
    assert cut(batch, 4) == [([1, 4], 62), ([5, 0], 32), ([3, 7], 16), ([2, 6], 8)]
    parts = [part for part, _ in micro_batches(batch, NUMBERS, 4)]
    assert [part.context_width for part in parts] == [64, 64, 32, 4]
    assert [part.response.shape for part in parts] == [(2, 54), (2, 32), (2, 16), (2, 8)]
    assert [part.prompt.shape[1] for part in parts] == [8, 8, 8, 8]
    assert [part.context.shape[1] for part in parts] == [40, 40, 32, 4]
    assert sum(part.mask.sum() for part in parts) == batch.mask.sum()


def test_rows_of_one_width_stay_in_their_order(monkeypatch):
    monkeypatch.setattr(lengths, "MIN_BUCKET", 64)
    assert cut(uneven_batch(), 2) == [([0, 1, 2, 3], 62), ([4, 5, 6, 7], 62)]


def test_parts_whose_rows_have_no_gradient_are_left_out():
    """The narrowest idle row fills the last part that is kept."""
    assert cut(with_credit(uneven_batch(), [1, 3, 4]), 4, skip=True) == [([1, 4], 62), ([3, 6], 16)]
    distilled = with_credit(uneven_batch(context=True), []).replace(distilled=np.eye(N, dtype=np.float32)[5])
    assert cut(distilled, 4, skip=True) == [([5, 6], 32)]
    assert cut(with_credit(uneven_batch(), []), 4, skip=True) == [([6, 2], 8)]


def test_rows_that_share_prompts_point_to_them():
    """Rows 1, 4, 5 and 0, of which the last two have one prompt: three prompts and a copy of the first of them."""
    batch = uneven_batch()
    prompt, length = batch.prompt.copy(), batch.prompt_length.copy()
    prompt[5], length[5] = prompt[0], length[0]
    batch = batch.replace(prompt=prompt, prompt_length=length)
    (part, share), _ = micro_batches(batch, NUMBERS, 2, share_prompts=True)
    rows = share.policy[:, 0]
    assert rows.tolist() == [1, 4, 5, 0] and part.width is None and part.prompt.shape == (4, 8)
    assert len(set(part.prompt_index.tolist())) == 3
    np.testing.assert_array_equal(part.prompt[part.prompt_index], prompt[rows])
    np.testing.assert_array_equal(part.prompt_length[part.prompt_index], length[rows])
    np.testing.assert_array_equal(part.response, batch.response[rows])


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
def test_the_weights_of_micro_batches_are_those_of_the_whole(reduction):
    """True denominators: no mean of means, neither of the policy-gradient terms nor of the divergence."""
    loss = LossConfig(reduction=reduction, constant_length=9 if reduction == "constant" else None)
    batch = uneven_batch(context=True)
    whole = loss_weights(batch, Objective(loss, Divergence(), 1.0, 16))
    parts = [weights for _, weights in micro_batches(batch, whole, 4)]
    for name in ("policy", "distill"):
        total = getattr(whole, name).sum()
        assert sum(getattr(part, name).sum() for part in parts) == pytest.approx(total)
        assert total == pytest.approx(1.0) or reduction == "constant"
    assert not whole.distill[7].any() and whole.policy[7].any()


def test_a_step_s_batches_by_hand():
    rollouts = tiny_rollouts(
        [1, 0, 0, 1], length=3, finish_reason=("stop", "length", "stop", "stop"),
        sampler_logprobs=-np.arange(12, dtype=np.float32).reshape(4, 3),
    )  # fmt: skip
    advantage = np.arange(4, dtype=np.float32)
    credit = Credit(advantage, np.tile(advantage[:, None], 3), {})
    none = ("",) * 4
    contexts = Contexts(none, none, none, np.array([1, 3]), np.full((2, 5), 7, np.int32), np.array([5, 2], np.int32))
    first, second = make_batches(rollouts, credit, contexts=contexts, minibatches=2, mask_truncated=True)
    assert first.mask.tolist() == [[1, 1, 1], [0, 0, 0]] and second.mask.all()
    np.testing.assert_array_equal(second.old_logprobs, rollouts.sampler_logprobs[2:])
    assert second.token_advantage[:, 0].tolist() == [2, 3] and not second.reference_logprobs.any()
    assert first.distilled.tolist() == second.distilled.tolist() == [0, 1]
    assert first.context_length.tolist() == [1, 5] and second.context_length.tolist() == [1, 2]

    old, reference = np.float32([[-1.0]]) * np.ones((2, 4, 3), np.float32)
    (batch,) = make_batches(rollouts, credit, old, 2 * reference, minibatches=1, mask_truncated=False)
    assert batch.mask.all() and batch.context is batch.distilled is None
    assert (batch.old_logprobs == -1).all() and (batch.reference_logprobs == -2).all()
    assert jax.tree.all(jax.tree.map(lambda a: len(a) == 4, batch))
