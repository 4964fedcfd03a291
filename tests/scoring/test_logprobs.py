"""Log-probabilities in chunks equal dense ones, values and gradients, and no table over the vocabulary is ever made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.policy import Policy, preset
from amrsd_jax.scoring.logprobs import concatenate, project, target_logprobs, token_logprobs

N, P, T = 3, 5, 7
GENERATOR = np.random.default_rng(0)
PROMPT, RESPONSE = (GENERATOR.integers(4, 48, (N, length), dtype=np.int32) for length in (P, T))
LENGTH = np.array([5, 2, 1])
WEIGHT = GENERATOR.normal(size=(2, N, T))  # of log-probabilities and entropies in the loss that is differentiated


def dense(policy, params, temperature):
    """The whole table [N, T, V] at once, from rows put together by NumPy."""
    rows = np.zeros((N, P + T), np.int32)
    for row, prompt, length, response in zip(rows, PROMPT, LENGTH, RESPONSE, strict=True):
        row[: length + T] = [*prompt[:length], *response]
    before = LENGTH[:, None] - 1 + np.arange(T)
    logits = policy.logits(params, policy.forward(params, jnp.asarray(rows)))[np.arange(N)[:, None], before]
    table = jax.nn.log_softmax(logits / temperature)
    logprobs = jnp.take_along_axis(table, RESPONSE[:, :, None], axis=-1)[..., 0]
    return logprobs, -jnp.sum(jnp.exp(table) * table, axis=-1)


def test_concatenate_by_hand():
    rows = concatenate(jnp.array([[1, 2, 9], [3, 9, 9]]), jnp.array([2, 1]), jnp.array([[5, 6], [7, 8]]))
    assert rows[:, :4].tolist() == [[1, 2, 5, 6], [3, 7, 8, 8]]


@pytest.mark.slow
@pytest.mark.parametrize("temperature, chunk", [pytest.param(1.0, 1, marks=pytest.mark.slow), (0.7, 6)])
def test_chunks_give_the_dense_values_and_gradients(policy, params, temperature, chunk):
    """Also where the chunk divides neither rows nor tokens."""

    def evaluate(score):
        def loss(p):
            values = jnp.stack(score(p))
            return jnp.vdot(WEIGHT, values), values

        gradient, values = jax.jit(jax.grad(loss, has_aux=True))(params)
        return values, gradient

    arrays = map(jnp.asarray, (PROMPT, LENGTH, RESPONSE))
    values, gradient = evaluate(lambda p: token_logprobs(policy, p, *arrays, temperature=temperature, chunk=chunk))
    expected, expected_gradient = evaluate(lambda p: dense(policy, p, temperature))
    np.testing.assert_allclose(values, expected, atol=2e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-4 * float(jnp.abs(b).max()) + 1e-6)


def test_log_probability_and_entropy_by_hand():
    """Of a uniform distribution, of one with shares 1/2, 1/4, 1/4, and of one that is almost certain, far from zero."""
    logits = jnp.array([[3.0, 3.0, 3.0], [np.log(2), 0.0, 0.0], [100.0, 88.0, 60.0]])
    logprobs, entropy = target_logprobs(logits, jnp.array([1, 2, 0]))
    rest = np.exp(-12.0)  # the share of the second entry of the third row
    np.testing.assert_allclose(logprobs, [-np.log(3), -np.log(4), -rest], rtol=1e-5, atol=3e-7)
    np.testing.assert_allclose(entropy, [np.log(3), 1.5 * np.log(2), 13 * rest], rtol=1e-5, atol=3e-7)


def test_the_whole_table_of_logits_is_never_made():
    """Memory of the compiled program: a large vocabulary, chunks of 8 tokens against 512 tokens at once."""
    policy = Policy(preset("tiny", vocab_size=20_000, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16))
    hidden, targets = jnp.zeros((4, 128, 16)), jnp.zeros((4, 128), jnp.int32)

    def temporary_bytes(chunk):
        def loss(params):
            return jnp.sum(project(policy, params, hidden, targets, chunk=chunk)[0])

        compiled = jax.jit(jax.grad(loss)).lower(policy.abstract_params()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    table = 4 * 128 * 20_000 * 4
    assert temporary_bytes(512) >= table
    assert temporary_bytes(8) < table / 4
