"""Supervised learning: how documents are packed, and when the result is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.supervised import Document, check_finite, counted_tokens, pack, supervise
from amrsd_jax.scoring.teachers import copy
from amrsd_jax.sections import ConfigError


def test_a_warm_up_that_is_not_finite_is_refused():
    check_finite([4.8, np.nan, 0.2], 2, "warmup.learning_rate = 0.5")
    for losses, applied in (([4.8, np.nan, np.nan], 1), ([4.8, np.inf], 2), ([4.8] * 4, 0)):
        with pytest.raises(
            ConfigError, match=f"warmup.learning_rate = 0.5.* from 4.8 .*{applied} of {len(losses)} updates"
        ):
            check_finite(losses, applied, "warmup.learning_rate = 0.5")


def test_packing_by_hand():
    packed = pack([Document([1, 2], [3]), Document([4], [5, 6]), Document([7], [8], rehearsed=True)], 5)
    assert packed.tokens.tolist() == [[1, 2, 3, 7, 8], [4, 5, 6, 0, 0]]
    assert packed.segments.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]]
    assert packed.loss_mask.tolist() == [[0, 0, 1, 0, 1], [0, 1, 1, 0, 0]]
    assert packed.rehearsed.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    index, counted, rehearsed = counted_tokens(packed)
    assert index.tolist() == [[2, 4], [1, 2]] and counted.all() and rehearsed.tolist() == [[0, 1], [0, 0]]


def test_rows_with_fewer_counted_tokens_are_padded():
    _, counted, _ = counted_tokens(pack([Document([1], [2, 3, 4]), Document([1, 2, 3], [4])], 4))
    assert counted.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_packing_loses_nothing():
    generator = np.random.default_rng(0)
    documents = [Document([9] * int(a), [5] * int(b)) for a, b in generator.integers(1, 20, (200, 2))]
    packed = pack(documents, 48)
    assert packed.loss_mask.sum() == sum(len(document.completion) for document in documents)
    assert (packed.segments > 0).sum() == sum(document.size for document in documents)
    assert (packed.segments > 0).mean() > 0.85


@pytest.mark.slow
def test_rows_that_the_devices_do_not_divide_are_trained_on_by_each(policy, params):
    """Updates of three rows have the same losses on four devices as on one."""
    packed, losses = pack([Document([1, 2, 3], [4, 5])] * 6, 5), []
    for devices in (1, 4):
        mesh = meshes.make_mesh(data=devices, fsdp=1, tensor=1)
        placed = jax.device_put(copy(params), meshes.replicated(mesh))
        options = dict(place="test", rows=3, learning_rate=1e-2, generator=np.random.default_rng(0), chunk=64)
        losses.append(supervise(policy, placed, packed, mesh, **options)[1])
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_rehearsed_completion_keeps_the_distribution_and_a_learnt_one_is_learnt(policy, params):
    """Learning one completion changes what follows another prompt, unless that is rehearsed."""
    learnt, other, mesh = ([1, 2, 3], [4, 5]), ([6, 2, 3], [7, 8]), meshes.make_mesh(data=1, fsdp=1, tensor=1)

    def logprobs(params, prompt, completion):
        tokens = jnp.array([prompt + completion], jnp.int32)
        hidden = policy.forward(params, tokens)
        logits = policy.unembed(policy.head(params), hidden[0, len(prompt) - 1 : -1])
        return jax.nn.log_softmax(logits)

    def trained(*others):
        packed = pack([Document(*learnt), *others] * 8, 16)
        params_after, losses = supervise(
            policy, copy(params), packed, mesh, place="test", rows=2, passes=10, learning_rate=1e-2,
            generator=np.random.default_rng(0), chunk=64,
        )  # fmt: skip
        nll = -float(logprobs(params, *learnt)[[0, 1], learnt[1]].mean())
        assert losses[0] == pytest.approx(
            nll / (2 if others else 1), rel=1e-4
        )  # what is rehearsed begins with a KL of 0
        return params_after

    before = logprobs(params, *other)
    changes = []
    for after in (trained(), trained(Document(*other, rehearsed=True))):
        changes.append(
            float((np.exp(before) * (before - logprobs(after, *other))).sum(-1).mean())
        )  # KL, nats per token
        assert np.exp(logprobs(after, *learnt))[[0, 1], learnt[1]].min() > 0.8
    assert changes[0] > 0.5 and changes[1] < 0.02
