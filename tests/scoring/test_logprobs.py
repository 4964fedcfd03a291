"""Chunked scores equal dense ones, values and gradients; student and teacher score the same tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.learning.mesh import make_mesh, rows
from amrsd_jax.records import Contexts, Rollouts
from amrsd_jax.scoring.logprobs import join, project, token_logprobs
from amrsd_jax.scoring.score import score, score_rows
from amrsd_jax.tasks.base import Problem, Verdict

N, P, T = 3, 5, 7
scored = jax.jit(token_logprobs, static_argnames=("policy", "temperature", "chunk"))
PROMPT = jax.random.randint(jax.random.key(0), (N, P), 4, 48)
LENGTH = jnp.array([5, 2, 1])
RESPONSE = jax.random.randint(jax.random.key(1), (N, T), 4, 48)


def dense(policy, params, temperature=1.0):
    """One row at a time, the whole vocabulary at once."""
    logp, entropy = [], []
    for prompt, length, response in zip(PROMPT, np.asarray(LENGTH).tolist(), RESPONSE, strict=True):
        row = jnp.concatenate([prompt[:length], response])[None]
        logits = policy.logits(params, policy.forward(params, row))[0, length - 1 : -1] / temperature
        table = jax.nn.log_softmax(logits)
        logp.append(table[jnp.arange(T), response])
        entropy.append(-jnp.sum(jnp.exp(table) * table, axis=-1))
    return jnp.stack(logp), jnp.stack(entropy)


def test_join_by_hand():
    joined = join(jnp.array([[1, 2, 9], [3, 9, 9]]), jnp.array([2, 1]), jnp.array([[5, 6], [7, 8]]))
    assert joined[:, :4].tolist() == [[1, 2, 5, 6], [3, 7, 8, 8]]


@pytest.mark.parametrize("chunk", [1, 6, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chunked_is_dense(policy, params, chunk, temperature):
    """Chunks that divide nothing included."""
    logp, entropy = scored(policy, params, PROMPT, LENGTH, RESPONSE, temperature=temperature, chunk=chunk)
    expected_logp, expected_entropy = dense(policy, params, temperature)
    np.testing.assert_allclose(logp, expected_logp, atol=2e-5)
    np.testing.assert_allclose(entropy, expected_entropy, atol=2e-5)


@pytest.mark.parametrize("chunk", [5, 1000])
def test_chunked_gradients_are_dense_ones(policy, params, chunk):
    weight = jax.random.normal(jax.random.key(2), (2, N, T))

    def loss(params, score):
        return sum(jnp.sum(w * value) for w, value in zip(weight, score(params), strict=True))

    ours = jax.grad(loss)(params, lambda p: scored(policy, p, PROMPT, LENGTH, RESPONSE, temperature=1.0, chunk=chunk))
    expected = jax.grad(loss)(params, jax.jit(lambda p: dense(policy, p)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-4 * float(jnp.abs(b).max()) + 1e-6)


def test_the_whole_table_of_logits_is_never_made():
    """Memory of the compiled program: a large vocabulary, chunks of 8 tokens against 512 tokens at once."""
    from amrsd_jax.policy import Policy, preset

    policy = Policy(preset("tiny", vocab_size=20_000, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16))
    hidden, targets = jnp.zeros((4, 128, 16)), jnp.zeros((4, 128), jnp.int32)

    def bytes_of(chunk):
        def loss(params):
            return jnp.sum(project(policy, params, hidden, targets, chunk=chunk)[0])

        compiled = jax.jit(jax.grad(loss)).lower(policy.abstract_params()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    table = 4 * 128 * 20_000 * 4
    assert bytes_of(512) >= table
    assert bytes_of(8) < table / 4


def rollouts():
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3, [1] * 6 + [0]], np.float32)
    zeros = np.zeros((N, T), np.float32)
    return Rollouts(
        problems=(Problem("p", "q", "a"),) * N,
        text=("",) * N,
        verdicts=(Verdict(0.0, "", None, True),) * N,
        finish_reason=("stop",) * N,
        prompt=np.asarray(PROMPT),
        prompt_length=np.asarray(LENGTH),
        response=np.asarray(RESPONSE),
        mask=mask,
        logp=zeros,
        logp_plain=zeros,
        reward=np.zeros(N, np.float32),
        first_error=np.full((N, 2), -1, np.int32),
    )


HOW = dict(rows=2, temperature=1.0, chunk=100, sharding=rows(make_mesh(1, 1, 1)))


def test_score_covers_the_rows_with_a_context(policy, params):
    """With the prompt itself as context the teacher is the student: the gap is exactly 0."""
    chosen = np.array([0, 2])
    context = np.zeros((2, 9), np.int32)
    context[:, :P] = np.asarray(PROMPT)[chosen]
    none = ("",) * N
    reflections = Contexts(none, none, none, chosen, context, np.asarray(LENGTH)[chosen])
    scores = score(policy, params, (policy, params), rollouts(), reflections, **HOW)
    assert scores.scored.tolist() == [True, False, True]
    expected = np.asarray(dense(policy, params)[0]) * rollouts().mask
    np.testing.assert_allclose(scores.logp_student[chosen], expected[chosen], atol=2e-5)
    np.testing.assert_allclose(scores.logp_teacher, scores.logp_student, atol=2e-5)
    assert not scores.logp_student[1].any() and not scores.logp_teacher[1].any()


def test_negative_contexts_are_scored_like_the_positive_one(policy, params):
    """K = 2; the prompt itself as a negative context gives the student's own log-probabilities."""
    none, empty = ("",) * N, np.zeros((0, 9), np.int32)
    context = np.zeros((2, 9), np.int32)
    context[:, :P] = np.asarray(PROMPT)[:2]
    one = Contexts(none, none, none, np.array([0, 1]), context, np.asarray(LENGTH)[:2])
    missing = Contexts(none, none, none, np.zeros(0, np.int64), empty, np.zeros(0, np.int32))
    scores = score(
        policy, params, (policy, params), rollouts(), dataclasses.replace(one, negatives=(one, missing)), **HOW
    )
    assert scores.has_negative.tolist() == [[True, True, False], [False] * 3]
    np.testing.assert_allclose(scores.logp_negative[0], scores.logp_student, atol=2e-5)
    assert not scores.logp_negative[1].any()
    np.testing.assert_allclose(scores.entropy_teacher, scores.entropy, atol=2e-5)


def test_any_number_of_rows_gives_the_same_numbers(policy, params):
    """Micro-batches are padded to one shape; which rows share one never shows."""
    arrays = [np.asarray(a) for a in (PROMPT, LENGTH, RESPONSE)]
    whole, _ = score_rows(policy, params, *arrays, **HOW)
    for i in range(N):
        alone, _ = score_rows(policy, params, *(a[i : i + 1] for a in arrays), **HOW)
        np.testing.assert_array_equal(alone[0], whole[i])
