"""The key/value cache: a query attends to exactly the tokens that were laid out and appended."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.learning.mesh import make_mesh
from amrsd_jax.learning.mesh import rows as mesh_rows
from amrsd_jax.policy import cache, preset


def textbook(q, k, v):
    """One query [N, H] over k, v [t, K, H]."""
    out = np.zeros(q.shape)
    for head in range(len(q)):
        shared = head // (len(q) // k.shape[1])
        weights = np.exp(k[:, shared] @ q[head] / np.sqrt(q.shape[1]))
        out[head] = weights / weights.sum() @ v[:, shared]
    return out


LAYOUTS = pytest.mark.parametrize("layout", [cache.Blocks, cache.Rows])


@LAYOUTS
@pytest.mark.parametrize("prompt", [5, 63, 100])
def test_a_query_attends_to_all_tokens_so_far_and_to_no_other(layout, prompt):
    rows, length = 3, cache.round_up(prompt + 40, layout)
    q, k, v = (np.array(jax.random.normal(jax.random.key(i), (rows, length, 4 // (1 + (i > 0)), 8))) for i in range(3))
    noise = 1e3 * jnp.ones((rows, prompt, 2, 8))  # a prompt's padding
    lengths = np.array([prompt, 1, prompt // 2])
    real = np.arange(prompt)[:, None, None] < lengths[:, None, None, None]
    layer = layout.lay_out(jnp.where(real, k[:, :prompt], noise), jnp.where(real, v[:, :prompt], noise))
    assert layer.length == cache.round_up(prompt, layout) and layer.heads == 2
    layer = layer.resize(length)
    append, attend = jax.jit(layout.append), jax.jit(layout.attend)
    for _ in range(40):
        at = np.arange(rows), lengths
        layer = append(layer, k[at], v[at], jnp.array(lengths))
        out = attend(layer, q[at], jnp.array(lengths))
        for row, last in enumerate(lengths):
            expected = textbook(q[row, last], k[row, : last + 1], v[row, : last + 1])
            np.testing.assert_allclose(out[row], expected, atol=1e-5)
        lengths = lengths + 1


@pytest.mark.parametrize("layout", [cache.Blocks, cache.Rows, cache.Cudnn])
def test_a_window_hides_earlier_tokens_and_a_softcap_bounds_scores(layout):
    q, k, v = (
        np.array(jax.random.normal(jax.random.key(i), (3, layout.block, 4 // (1 + (i > 0)), 8))) for i in range(3)
    )
    position = np.array([0, 5, 40])
    at, layer = (np.arange(3), position), layout.lay_out(jnp.array(k), jnp.array(v))
    out = layer.attend(jnp.array(q[at]), jnp.array(position), window=6)
    for row, last in enumerate(position):
        seen = slice(max(0, last - 5), last + 1)
        np.testing.assert_allclose(out[row], textbook(q[row, last], k[row, seen], v[row, seen]), atol=1e-5)
    if layout is cache.Cudnn:  # has windows by XLA and no softcap
        return
    even = layer.attend(jnp.array(q[at]), jnp.array(position), softcap=1e-6)  # scores so small give equal weights
    np.testing.assert_allclose(even[2, 0], v[2, :41, 0].mean(axis=0), atol=1e-5)


EVERY = pytest.mark.parametrize("layout", cache.LAYOUTS.values(), ids=cache.LAYOUTS)


def random_layer(layout, length):
    return layout.lay_out(*jax.random.normal(jax.random.key(0), (2, 2, length, 2, 4)))


@EVERY
def test_a_position_outside_is_not_written(layout):
    layer, token = random_layer(layout, 8), jnp.full((2, 2, 4), 7.0)
    after = layer.append(token, token, jnp.array([3, layout.block]))
    for old, new in zip(layer, after, strict=True):
        assert (np.array(new[0]) == 7).sum() == 8 * (2 // len(layer))
        np.testing.assert_array_equal(new[1], old[1])


@EVERY
def test_a_smaller_cache_keeps_its_first_positions(layout):
    layer = random_layer(layout, 3 * layout.block)
    narrow = layer.resize(layout.block)
    wide = narrow.resize(3 * layout.block)
    assert (narrow.length, wide.length) == (layout.block, layer.length)
    for first, old, new in zip(narrow, layer, wide, strict=True):
        np.testing.assert_array_equal(first, old[tuple(map(slice, first.shape))])
        np.testing.assert_array_equal(first, new[tuple(map(slice, first.shape))])
        assert np.count_nonzero(new) == np.count_nonzero(first)


@pytest.mark.parametrize("shape", [None, (2, 1, 2)])
def test_the_ragged_kernel_is_given_what_its_formula_reads(monkeypatch, shape):
    """JAX's interpreters cannot run the kernel, so its own reference takes its place: pages, lengths and heads are ours."""
    from jax.experimental.pallas.ops.tpu import ragged_paged_attention as tpu

    def reference(q, pages, lengths, index, starts, count, *, sm_scale, **_):
        whole = dict(shape=q.shape, dtype=q.dtype)
        return jax.pure_callback(one_by_one, jax.ShapeDtypeStruct(**whole), q, pages, lengths, index, sm_scale)

    def one_by_one(q, pages, lengths, index, sm_scale):
        q, pages = np.asarray(q, np.float64), np.asarray(pages, np.float64)
        out = np.zeros(q.shape, np.float32)
        for row, (length, own) in enumerate(zip(np.asarray(lengths), np.asarray(index), strict=True)):
            pairs = pages[own].reshape(-1, *pages.shape[2:])[:length]
            out[row] = textbook(q[row] * sm_scale * np.sqrt(q.shape[-1]), pairs[:, 0::2], pairs[:, 1::2])
        return out

    monkeypatch.setattr(tpu, "ragged_paged_attention", reference)
    rows, length = 4, 2 * cache.Ragged.block
    q, k, v = (np.array(jax.random.normal(jax.random.key(i), (rows, length, 4 // (1 + (i > 0)), 8))) for i in range(3))
    position, at = jnp.array([0, 5, 130, 500]), np.arange(rows)
    layer = cache.Ragged.lay_out(k, v).append(k[:, 7], v[:, 7], jnp.array([300, 300, 130, 300]))
    k[2, 130], v[2, 130] = k[2, 7], v[2, 7]  # the others are beyond the cache
    out = layer.attend(q[:, 0], position, shape and make_mesh(*shape))
    for row in at:
        last = min(int(position[row]), length - 1)
        expected = textbook(q[row, 0], k[row, : last + 1], v[row, : last + 1])
        np.testing.assert_allclose(out[row], expected, atol=1e-5)


@pytest.mark.parametrize("heads, split", [(4, "tensor"), (1, None)])
@EVERY
def test_heads_are_split_over_the_tensor_axis_where_it_divides_them(layout, heads, split):
    rows = mesh_rows(make_mesh(2, 1, 2))
    layer = layout.lay_out(*jnp.zeros((2, 4, layout.block, heads, 8)))
    (placed,) = jax.device_put([layer], cache.shardings([layer], rows))
    for array in placed:
        assert array.sharding.spec[layout.heads_axis] == split
        assert array.sharding.shard_shape(array.shape)[0] == 2


HALF = preset("tiny", head_dim=128, dtype="bfloat16")


@pytest.mark.parametrize(
    ("architecture", "platform", "chosen"),
    [
        (HALF, "cpu", "blocks"),
        (HALF, "gpu", "cudnn"),
        (HALF, "old gpu", "blocks"),
        (HALF, "tpu", "ragged"),
        (dataclasses.replace(HALF, dtype="float32"), "gpu", "blocks"),
        (dataclasses.replace(HALF, head_dim=64), "tpu", "xla"),
    ],
)
def test_auto_selects_a_layout_that_can_be_read(architecture, platform, chosen):
    devices = (platform.split()[-1], platform == "gpu")
    assert cache.choose_layout("auto", architecture, *devices) == chosen
    for name in ("blocks", "xla", chosen):
        assert cache.choose_layout(name, architecture, *devices) == name
    for name in {"cudnn", "ragged"} - {chosen}:
        with pytest.raises(ValueError, match=f"decode_attention = '{name}': it needs a"):
            cache.choose_layout(name, architecture, *devices)
