"""Chunked scores equal dense ones, values and gradients; student and teacher score the same tokens."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax import lengths
from amrsd_jax.learning.mesh import make_mesh, rows
from amrsd_jax.records import Contexts, Rollouts
from amrsd_jax.scoring import score as score_module
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


def test_rows_that_the_student_has_scored_already_are_not_scored_again(policy, params):
    none, data = ("",) * N, rollouts()
    contexts = Contexts(none, none, none, np.array([1, 2]), data.prompt[1:], data.prompt_length[1:])
    again = score(policy, params, (policy, params), data, contexts, **HOW)
    own = score_rows(policy, params, data.prompt, data.prompt_length, data.response, data.mask, **HOW)
    known = score(policy, None, (policy, params), data, contexts, own, **HOW)  # no parameters to score with
    for ours, theirs in zip(jax.tree.leaves(vars(known)), jax.tree.leaves(vars(again)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_student_and_teacher_of_one_set_of_parameters_share_a_piece(policy, params, monkeypatch):
    pieces, scorer = [], score_module._scorer
    monkeypatch.setattr(
        score_module, "_scorer", lambda *args, **how: pieces.append(how["width"]) or scorer(*args, **how)
    )
    none, data = ("",) * N, rollouts()
    contexts = Contexts(none, none, none, np.array([1]), data.prompt[:1], data.prompt_length[:1])
    together = score(policy, params, (policy, params), data, contexts, **HOW)
    copy = jax.tree.map(jnp.copy, params)
    apart = score(policy, params, (policy, copy), data, contexts, **HOW)
    assert len(pieces) == 1 + 2
    for ours, theirs in zip(jax.tree.leaves(vars(together)), jax.tree.leaves(vars(apart)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


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
    """Pieces are padded to one shape; which rows share one never shows."""
    arrays = [np.asarray(a) for a in (PROMPT, LENGTH, RESPONSE, rollouts().mask)]
    whole, _ = score_rows(policy, params, *arrays, **HOW)
    for i in range(N):
        alone, _ = score_rows(policy, params, *(a[i : i + 1] for a in arrays), **HOW)
        np.testing.assert_array_equal(alone[0], whole[i])


# ---------------------------------------------------------------- rows of any length

LONG = 4, 28  # P and T, which are cut to 4, 8, 16 and 32 tokens together
_POOL = jax.device_get(jax.random.randint(jax.random.key(3), (2, 12, sum(LONG)), 4, 48))


@st.composite
def mixed(draw):
    """Prompts, their lengths, responses and masks of up to twelve rows."""
    count = draw(st.integers(0, 12))
    sizes = [
        draw(st.lists(st.integers(least, most), min_size=count, max_size=count))
        for least, most in zip((1, 0), LONG, strict=True)
    ]
    given, answered = (np.array(size, np.int32) for size in sizes)
    mask = (np.arange(LONG[1]) < answered[:, None]).astype(np.float32)
    return _POOL[0, :count, : LONG[0]], given, _POOL[1, :count, : LONG[1]], mask


@pytest.fixture
def narrow(monkeypatch):
    """Buckets from 4 tokens on."""
    monkeypatch.setattr(lengths, "LEAST", 4)


@hypothesis.settings(max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(rows=mixed(), together=st.sampled_from([1, 3]))
def test_rows_cut_to_their_length_score_as_padded_ones(policy, params, narrow, rows, together):
    prompt, length, response, mask = rows
    how = HOW | {"rows": together}
    found = score_rows(policy, params, *rows, **how)
    for values in found:
        assert not values[mask == 0].any()
    if len(response):
        expected = scored(policy, params, *_padded(prompt, length, response), temperature=1.0, chunk=100)
        for values, padded in zip(found, expected, strict=True):
            np.testing.assert_allclose(values, padded[: len(mask)] * mask, atol=2e-5)


def _padded(*arrays):
    """Twelve rows, so that they all are scored by one program."""
    return [np.resize(a, (12, *a.shape[1:])) for a in arrays]


def test_a_row_of_any_length_gets_the_same_alone(policy, params, narrow):
    """To the bit, beside rows of other widths and wherever it stands in a piece: savings are exact."""
    answered = np.array([28, 3, 9, 1, 20, 10, 2, 11, 27, 12, 4, 5])
    mask = (np.arange(LONG[1]) < answered[:, None]).astype(np.float32)
    arrays = _POOL[0, :, : LONG[0]], np.arange(12, dtype=np.int32) % 4 + 1, _POOL[1, :, : LONG[1]], mask
    whole = score_rows(policy, params, *arrays, **HOW)
    for chosen in (np.array([9]), np.arange(12)[::-1], np.array([5, 1, 0])):
        some = score_rows(policy, params, *(a[chosen] for a in arrays), **HOW)
        for part, values in zip(some, whole, strict=True):
            np.testing.assert_array_equal(part, values[chosen])


def test_only_buckets_are_compiled(policy, params, narrow):
    """Whatever the lengths: at most 4, 8, 16 and 32 tokens."""
    before = score_module._scorer._cache_size()
    for seed in range(3):
        answered = np.random.default_rng(seed).integers(0, 29, 12)
        mask = (np.arange(LONG[1]) < answered[:, None]).astype(np.float32)
        arrays = _POOL[0, :, : LONG[0]], np.full(12, 1 + seed, np.int32), _POOL[1, :, : LONG[1]], mask
        score_rows(policy, params, *arrays, **HOW | {"chunk": 99})
    assert 3 <= score_module._scorer._cache_size() - before <= 4
