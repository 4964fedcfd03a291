"""Attention of whole rows: blocks against the plain formula, memory linear in T, and the choice of a backend."""

import dataclasses
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from amrsd_jax.learning.mesh import make_mesh
from amrsd_jax.platforms import runs_cudnn
from amrsd_jax.policy import attention, preset

SHAPE = dict(heads=4, kv_heads=2, head_dim=8)


def inputs(length, rows=2):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (rows, length, heads, 8)) for key, heads in zip(keys, (4, 2, 2), strict=True)]


def plain(q, k, v, segments=None, window=None, softcap=None):
    """The formula in float64 NumPy."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    k, v = (np.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))
    scores = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(q.shape[-1])
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    mask = np.tril(np.ones(scores.shape[-2:], bool))
    if window:
        mask &= ~np.tril(mask, -window)
    if segments is not None:
        mask = mask & (segments[:, :, None] == segments[:, None, :])[:, None]
    weights = np.exp(np.where(mask, scores, -np.inf))
    return np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), v)


@pytest.fixture
def short_blocks(monkeypatch):
    """Makes rows of a few tokens many blocks."""
    monkeypatch.setattr(attention, "BLOCK", 4)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "length, packed, window, softcap",
    [
        *[(1, False, None, None), (5, True, None, None), (16, False, None, None), (31, False, None, None)],
        *[
            (31, True, None, 1.5),
            (31, False, 1, None),
            (31, True, 6, None),
            (31, False, 13, 1.5),
            (31, False, 31, None),
        ],
    ],
)
def test_blocks_equal_the_formula(length, packed, window, softcap):
    q, k, v = inputs(length)
    segments = np.minimum(np.arange(length) // 3, 4)[None].repeat(2, 0) if packed else None
    numbers = None if segments is None else jnp.asarray(segments)
    out = jax.jit(lambda *a: attention.attention(*a, numbers, window=window, softcap=softcap))(q, k, v)
    np.testing.assert_allclose(out, plain(q, k, v, segments, window, softcap), atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("short_blocks")
def test_gradients_do_not_depend_on_blocks():
    arrays = inputs(21)

    def loss(function):
        return jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(function(*a))), argnums=(0, 1, 2)))(*arrays)

    whole = loss(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True))
    for ours, theirs in zip(loss(attention.attention), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("packed, limits", [(False, {}), (True, {}), (True, dict(window=40, softcap=1.5))])
def test_splash_equals_xla_on_any_mesh(packed, limits, monkeypatch):
    """Values and gradients of the TPU kernel, interpreted, with rows and heads split over devices or not."""
    monkeypatch.setattr(attention, "TILE", 128)
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (4, 150, heads, 128)) for key, heads in zip(keys, (4, 2, 2), strict=True)]
    segments = jnp.asarray(np.arange(150) // 60)[None].repeat(4, 0) if packed else None

    def values(**kwargs):
        def loss(q, k, v):
            out = attention.attention(q, k, v, segments, **limits, **kwargs)
            return jnp.sum(jnp.sin(out)), out

        (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
        return [out, *grads]

    expected = values()
    for mesh in (None, make_mesh(2, 1, 2)):
        for splash, xla in zip(values(backend="splash", mesh=mesh), expected, strict=True):
            np.testing.assert_allclose(splash, xla, atol=2e-5)


@pytest.mark.slow
def test_memory_is_linear_in_the_row():
    def temporaries(length):
        grad = jax.grad(lambda q, k, v: attention.attention(q, k, v).sum(), argnums=(0, 1, 2))
        arrays = [jax.ShapeDtypeStruct((1, length, heads, 8), jnp.float32) for heads in (4, 2, 2)]
        return jax.jit(grad).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8_192) < 2.5 * temporaries(4_096)


@pytest.mark.parametrize(
    ("backend", "length", "width"),
    [("cudnn", 833, 834), ("cudnn", 770, 770), ("splash", 512, 512), ("splash", 513, 1024), ("xla", 833, 833)],
)
def test_rows_have_the_widths_that_kernels_take(backend, length, width):
    """cuDNN's backward pass refuses odd widths."""
    assert attention.kernel_width(backend, length) == width


def test_splash_leaves_short_rows_to_xla():
    def program(length):
        arrays = [jax.ShapeDtypeStruct((1, length, heads, 128), jnp.bfloat16) for heads in (4, 2, 2)]
        return str(jax.make_jaxpr(lambda *a: attention.attention(*a, backend="splash"))(*arrays))

    assert "pallas_call" in program(attention.TILE) and "pallas_call" not in program(attention.TILE - 1)


def test_splash_says_what_it_needs():
    with pytest.raises(ValueError, match="'splash': it needs a TPU and architecture.head_dim, a multiple of 128"):
        attention.choose_backend("splash", preset("tiny", **SHAPE), "cpu", False)


GPU = preset("tiny", **SHAPE, dtype="bfloat16")


@pytest.mark.parametrize(
    ("architecture", "platform", "chosen"),
    [
        (GPU, "gpu", "cudnn"),
        (GPU, "old gpu", "xla"),
        (GPU, "cpu", "xla"),
        (GPU, "tpu", "xla"),
        (dataclasses.replace(GPU, head_dim=128), "tpu", "splash"),
        (dataclasses.replace(GPU, dtype="float32"), "gpu", "xla"),
        (dataclasses.replace(GPU, head_dim=12), "gpu", "xla"),
    ],
)
def test_auto_selects_a_backend_that_can_run(architecture, platform, chosen):
    devices = (platform.split()[-1], platform == "gpu")
    assert attention.choose_backend("auto", architecture, *devices) == chosen
    assert attention.choose_backend("xla", architecture, *devices) == "xla"
    if chosen == "cudnn":
        assert attention.choose_backend("cudnn", architecture, *devices) == "cudnn"
    else:
        with pytest.raises(ValueError, match="attention = 'cudnn': it needs"):
            attention.choose_backend("cudnn", architecture, *devices)


@pytest.mark.parametrize(
    ("device", "runs"),
    [
        (dict(platform="gpu", compute_capability="7.5"), False),  # T4
        (dict(platform="gpu", compute_capability="8.0"), True),
        (dict(platform="cuda", compute_capability="10.0"), True),
        (dict(platform="rocm", compute_capability="gfx942"), False),
        (dict(platform="gpu"), True),  # described, not there
        (dict(platform="tpu"), False),
    ],
)
def test_cudnn_runs_on_nvidia_gpus_from_ampere_on(device, runs):
    assert runs_cudnn(mock.Mock(spec=Mesh, devices=np.array([SimpleNamespace(**device)]))) is runs
