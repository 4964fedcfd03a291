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


@pytest.mark.parametrize("prompt", [5, 63, 100])
def test_a_query_attends_to_all_tokens_so_far_and_to_no_other(prompt):
    block, rows = cache.block(), 3
    length = cache.round_up(prompt + 40)
    q, k, v = (np.array(jax.random.normal(jax.random.key(i), (rows, length, 4 // (1 + (i > 0)), 8))) for i in range(3))
    noise = 1e3 * jnp.ones((rows, prompt, 2, 8))  # a prompt's padding
    lengths = np.array([prompt, 1, prompt // 2])
    real = np.arange(prompt)[:, None, None] < lengths[:, None, None, None]
    keys, values = cache.lay_out(jnp.where(real, k[:, :prompt], noise), jnp.where(real, v[:, :prompt], noise))
    assert keys.shape == (rows, 2, cache.round_up(prompt) // block, 8, block)
    keys, values = cache.resize(keys, length), cache.resize(values, length)
    append, attend = jax.jit(cache.append), jax.jit(cache.attend)
    for _ in range(40):
        at = np.arange(rows), lengths
        keys, values = append(keys, values, k[at], v[at], jnp.array(lengths))
        live = jnp.arange(length) <= lengths[:, None]
        out = attend(q[at], keys, values, live)
        for row, last in enumerate(lengths):
            expected = textbook(q[row, last], k[row, : last + 1], v[row, : last + 1])
            np.testing.assert_allclose(out[row], expected, atol=1e-5)
        lengths = lengths + 1


def test_a_position_outside_is_not_written():
    keys, values = cache.lay_out(jnp.ones((2, 8, 1, 4)), jnp.ones((2, 8, 1, 4)))
    token = jnp.full((2, 1, 4), 7.0)
    inside, outside = cache.append(keys, values, token, token, jnp.array([3, cache.block()]))
    assert (np.array(inside[0, 0, 0, :, 3]) == 7).all() and (np.array(outside[0, 0, 3]) == 7).all()
    np.testing.assert_array_equal(inside[1], keys[1])
    np.testing.assert_array_equal(outside[1], values[1])


def test_a_smaller_cache_keeps_its_first_positions():
    keys, values = cache.lay_out(*jax.random.normal(jax.random.key(0), (2, 1, 3 * cache.block(), 2, 4)))
    for array in (keys, values):
        narrow = cache.resize(array, cache.block())
        np.testing.assert_array_equal(cache.resize(narrow, 3 * cache.block())[:, :, : narrow.shape[2]], narrow)
        np.testing.assert_array_equal(array[:, :, : narrow.shape[2]], narrow)
