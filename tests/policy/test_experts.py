"""Mixtures of experts: tokens in blocks of one expert each, the same values and gradients as expert by expert, loads by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.config import LoraConfig
from amrsd_jax.policy import experts, preset

SORT = jax.jit(experts.sort, static_argnums=1)


@pytest.mark.parametrize("tokens, count, k", [(5, 3, 1), (40, 6, 3)])
@given(data=st.data())
def test_every_token_is_in_a_block_of_each_of_its_experts(data, tokens, count, k):
    chosen = [data.draw(st.permutations(range(count)))[:k] for _ in range(tokens)]
    blocks = SORT(jnp.array(chosen), count)
    size, number = experts.block_shape(tokens * k, count)
    assert blocks.token.shape == (number, size)
    place = np.asarray(blocks.place)
    np.testing.assert_array_equal(np.asarray(blocks.expert)[place // size], chosen)
    own = np.arange(tokens)[:, None].repeat(k, 1)
    np.testing.assert_array_equal(np.asarray(blocks.token).reshape(-1)[place], own)
    assert len(set(place.flat)) == tokens * k


@pytest.mark.parametrize("pairs, count", [(8, 128), (1000, 8), (1 << 17, 128), (1 << 22, 4)])
def test_blocks_hold_at_most_about_twice_the_tokens(pairs, count):
    size, number = experts.block_shape(pairs, count)
    assert pairs <= size * number <= max(8 * pairs, 3 * pairs)
    assert number <= 2 * count or size == experts.BLOCK[1]


def arrays():
    generator = np.random.default_rng(0)
    shapes = [(30, 4), (4, 3), (3, 4, 6), (3, 4, 6), (3, 6, 4)]
    return [jnp.array(generator.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("normalised", [True, False])
def test_values_and_gradients_are_those_of_every_expert_on_every_token(normalised):
    def blocks(h, router, *kernels):
        settings = dict(k=2, normalised=normalised, activation=jax.nn.silu)
        return experts.mixture(h, router, kernels, **settings)[0]

    def dense(h, router, gate, up, down):
        weights, chosen = experts.route(h, router, 2, normalised)
        weight = jnp.einsum("MkE,Mk->ME", jax.nn.one_hot(chosen, 3), weights)
        inner = jax.nn.silu(jnp.einsum("MD,EDF->MEF", h, gate)) * jnp.einsum("MD,EDF->MEF", h, up)
        return jnp.einsum("MEF,EFD,ME->MD", inner, down, weight)

    def both(function):
        loss = lambda *a: jnp.sum(jnp.sin(function(*a)))  # noqa: E731
        return jax.jit(lambda *a: (function(*a), jax.grad(loss, argnums=tuple(range(5)))(*a)))(*arrays())

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), both(blocks), both(dense))


def test_the_largest_shares_are_routed_to():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]]))
    weights, chosen = experts.route(logits, jnp.eye(3), 2, False)
    np.testing.assert_array_equal(chosen, [[1, 2], [0, 1]])
    np.testing.assert_allclose(weights, [[0.5, 0.4], [0.6, 0.3]], rtol=1e-6)
    weights, _ = experts.route(logits, jnp.eye(3), 2, True)
    np.testing.assert_allclose(weights, [[5 / 9, 4 / 9], [2 / 3, 1 / 3]], rtol=1e-6)


def test_copies_of_kernels_are_not_kept_for_the_backward_pass():
    def residuals(kernels):
        h, router, *_ = arrays()
        wide = jnp.zeros((300, 4)) + h[:1]
        kept = jax.vjp(
            lambda *a: experts.mixture(a[0], router, a[1:], k=1, normalised=True, activation=jax.nn.silu)[0],
            wide,
            *kernels,
        )[1]
        return [a.shape for a in jax.tree.leaves(kept)]

    shapes = residuals(arrays()[2:])
    copied = experts.block_shape(300, 3)[1]
    assert not [shape for shape in shapes if len(shape) == 3 and shape[0] == copied and shape[1:] in ((4, 6), (6, 4))]


def test_loads_are_counted_by_hand():
    chosen = jnp.array([[[[0, 1], [0, 2], [1, 2]]], [[[0, 1], [0, 1], [3, 2]]]])  # two layers, one row of three tokens
    tokens = experts.expert_tokens(chosen, jnp.array([[True, True, False]]), 4)
    np.testing.assert_array_equal(tokens, [[2, 1, 1, 0], [2, 2, 0, 0]])
    metrics = experts.load_metrics(tokens)
    assert float(metrics["expert_load_max"]) == 2.0 and float(metrics["experts_idle"]) == 3 / 8


def test_what_experts_cannot_have_is_refused():
    with pytest.raises(ValueError, match="experts_per_token = 3: expected 1 to experts = 2"):
        preset("tiny", experts=2, experts_per_token=3)
    with pytest.raises(ValueError, match="experts have no adapters; expected none of down, gate, up"):
        preset("tiny", experts=2, experts_per_token=1, lora=LoraConfig(rank=2))
    preset("tiny", experts=2, experts_per_token=1, lora=LoraConfig(rank=2, targets="query,output"))
