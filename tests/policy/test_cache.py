"""The key/value cache: a query attends to exactly the tokens that were laid out and appended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.policy import cache


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
    assert narrow.length == layout.block and narrow.resize(3 * layout.block).length == 3 * layout.block
    k, v = jax.random.normal(jax.random.key(0), (2, 2, 3 * layout.block, 2, 4))
    for a, b, c in zip(
        narrow,
        narrow.resize(3 * layout.block).resize(layout.block),
        layout.lay_out(k[:, : layout.block], v[:, : layout.block]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
