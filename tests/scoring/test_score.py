"""Rows of any length and number are scored alike; student and teacher score the same tokens of the rows with a context."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax import lengths
from amrsd_jax.config import ScoringConfig
from amrsd_jax.learning.mesh import make_mesh, rows
from amrsd_jax.records import Contexts
from amrsd_jax.scoring.score import Scorer, score
from tests.tiny import tiny_rollouts

N, P, T = 12, 4, 28  # widths of 8, 16 and 32 tokens
GENERATOR = np.random.default_rng(0)
MASK = (np.arange(T) < np.array([28, 3, 9, 1, 20, 10, 2, 11, 27, 12, 4, 5])[:, None]).astype(np.float32)
ROLLOUTS = tiny_rollouts(
    [False] * N,
    length=T,
    prompt=GENERATOR.integers(4, 48, (N, P), dtype=np.int32),
    prompt_length=np.arange(N, dtype=np.int32) % P + 1,
    response=GENERATOR.integers(4, 48, (N, T), dtype=np.int32),
    mask=MASK,
)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(lengths, "MIN_BUCKET", 8)


@pytest.fixture(scope="module")
def scorer():
    return Scorer(ScoringConfig(rows=3, chunk=100), 1.0, rows(make_mesh(1, 1, 1)))


@pytest.fixture(scope="module")
def padded(policy, params, scorer):
    """Log-probabilities and entropies of all rows, padded to one width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "MIN_BUCKET", P + T)
        return scorer.score_rollouts(policy, params, ROLLOUTS)


def row_arrays(chosen):
    return [getattr(ROLLOUTS, name)[chosen] for name in ("prompt", "prompt_length", "response", "mask")]


def contexts(chosen, prompts=None, prompt_length=None) -> Contexts:
    """Contexts of some rows, by default their own questions, in an array that is wider than the questions'."""
    chosen = np.array(chosen, int)
    prompts = np.pad(ROLLOUTS.prompt[chosen], ((0, 0), (0, 5))) if prompts is None else prompts
    none = ("",) * N
    return Contexts(
        none, none, none, chosen, prompts, ROLLOUTS.prompt_length[chosen] if prompt_length is None else prompt_length
    )


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(vars(a)), jax.tree.leaves(vars(b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_rows_cut_to_their_length_score_as_padded_ones(policy, params, scorer, padded):
    for value, expected in zip(scorer.score_rollouts(policy, params, ROLLOUTS), padded, strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-5)
        assert not value[MASK == 0].any()


@pytest.mark.parametrize("chosen", [[9], range(N)[::-1], [5, 1, 0], []])
def test_a_row_scores_the_same_to_the_bit_beside_any_others(policy, params, scorer, chosen):
    """So that leaving rows out changes nothing."""
    chosen = np.array(chosen, int)
    whole = scorer.score_rollouts(policy, params, ROLLOUTS)
    for part, values in zip(scorer.score_rows(policy, params, *row_arrays(chosen)), whole, strict=True):
        np.testing.assert_array_equal(part, values[chosen])


@pytest.mark.slow
def test_with_the_question_as_context_the_teacher_is_the_student(policy, params, scorer, padded):
    chosen = [0, 2]
    logprobs = score(scorer, (policy, params), (policy, params), ROLLOUTS, contexts(chosen))
    assert np.flatnonzero(logprobs.scored).tolist() == chosen
    others = np.setdiff1d(np.arange(N), chosen)
    for student, teacher, expected in (
        (logprobs.student_logprobs, logprobs.teacher_logprobs, padded[0]),
        (logprobs.student_entropy, logprobs.teacher_entropy, padded[1]),
    ):
        np.testing.assert_allclose(student[chosen], expected[chosen], atol=2e-5)
        np.testing.assert_allclose(teacher, student, atol=2e-5)
        assert not student[others].any() and not teacher[others].any()


def test_a_teacher_of_its_own_reads_the_context(policy, params, scorer):
    prompt, length = np.array([[7, 8, 9, 10, 0, 0]], np.int32), np.array([4], np.int32)
    other = jax.tree.map(lambda a: 0.5 * a, params)
    logprobs = score(scorer, (policy, params), (policy, other), ROLLOUTS, contexts([1], prompt, length))
    expected, entropy = scorer.score_rows(policy, other, prompt, length, ROLLOUTS.response[[1]], MASK[[1]])
    np.testing.assert_array_equal(logprobs.teacher_logprobs[[1]], expected)
    np.testing.assert_array_equal(logprobs.teacher_entropy[[1]], entropy)
    assert (logprobs.gap[1, :3] != 0).all()


def test_scoring_student_and_teacher_together_or_apart_is_the_same(policy, params, scorer):
    """Together where they have the same parameters, apart where the teacher's are a copy."""
    together = score(scorer, (policy, params), (policy, params), ROLLOUTS, contexts([1, 4]))
    copy = jax.tree.map(jnp.copy, params)
    assert_equal(together, score(scorer, (policy, params), (policy, copy), ROLLOUTS, contexts([1, 4])))


def test_known_student_scores_are_used(policy, params, scorer):
    """Those of all rows, so that rows without a context keep them, without a gap."""
    known = scorer.score_rollouts(policy, params, ROLLOUTS)
    logprobs = score(scorer, (policy, None), (policy, params), ROLLOUTS, contexts([1, 2]), known)  # None cannot score
    np.testing.assert_array_equal(logprobs.student_logprobs, known[0])
    np.testing.assert_array_equal(logprobs.student_entropy, known[1])
    assert not logprobs.gap[3:].any()
    alone = score(scorer, (policy, params), None, ROLLOUTS, contexts([1, 2]), known)
    assert not alone.scored.any() and not alone.gap.any()
    assert not score(scorer, (policy, params), None, ROLLOUTS, contexts([])).student_logprobs.any()


def test_negative_contexts_are_scored_like_the_positive_one(policy, params, scorer):
    """K = 2, of which the second exists in no row; the question itself as negative gives the student's log-probabilities."""
    both = dataclasses.replace(contexts([0, 1]), negatives=(contexts([0, 1]), contexts([])))
    logprobs = score(scorer, (policy, params), (policy, params), ROLLOUTS, both)
    assert np.argwhere(logprobs.has_negative).tolist() == [[0, 0], [0, 1]]
    np.testing.assert_allclose(logprobs.negative_logprobs[0], logprobs.student_logprobs, atol=2e-5)
    assert not logprobs.negative_logprobs[1].any()
