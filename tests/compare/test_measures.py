"""Measures of one method, on rows small enough to work out by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from amrsd_jax.compare.measures import (
    added,
    auroc,
    concentration,
    digit_tokens,
    first_error,
    gap_at_error,
    mean_and_error,
    precision_at_1,
)
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.records import Credit, Rollouts


def rollouts(lengths, first_error, width=5):
    """Failed rows of so many tokens, padded to `width`, with their first errors."""
    n = len(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.float32)
    ids = np.zeros((n, width), np.int32)
    return Rollouts(
        problems=(Problem("p", "1+1", "2"),) * n, text=("3",) * n, verdicts=(Verdict(0.0, "wrong", "3", True),) * n,
        finish_reason=("stop",) * n, prompt=ids, prompt_length=np.ones(n, np.int32), response=ids, mask=mask,
        sampler_logprobs=np.zeros((n, width), np.float32), reward=np.zeros(n, np.float32),
        first_error=np.array(first_error, np.int32),
    )  # fmt: skip


def test_blame_by_hand():
    """Row 0 blames the wrong token most, row 1 all tokens alike, row 2's error is not known."""
    rows = rollouts([4, 2, 5], [(1, 3), (0, 1), (-1, -1)])
    credit = np.array([[0, -2, -1, 0, 0], [-1, -1, 0, 0, 0], [1, 2, 3, 4, 5]], np.float32)
    token, step = (first_error(credit, rows)[name] for name in ("token", "step"))
    assert token["rows"] == 2 and token["rows_non_uniform"] == 1
    assert token["auroc"] == pytest.approx((1 + 0.5) / 2) and token["auroc_non_uniform"] == 1
    assert token["precision_at_1"] == pytest.approx((1 + 0.5) / 2) and token["precision_at_1_non_uniform"] == 1
    assert token["random"] == {"auroc": 0.5, "precision_at_1": pytest.approx((1 / 4 + 1 / 2) / 2)}
    assert step["auroc"] == pytest.approx((1 + 0.5) / 2) and step["random"]["precision_at_1"] == pytest.approx(0.5)
    assert first_error(credit, rows, np.array([True, False, True]))["token"]["rows"] == 1
    assert first_error(credit, rows, np.array([False, False, True])) is None


def test_auroc_and_precision_by_hand():
    score, wrong = np.array([0.1, 0.9, 0.9, 0.3]), np.array([False, True, False, False])
    assert auroc(score, wrong) == pytest.approx(2.5 / 3) and precision_at_1(score, wrong) == 0.5
    assert auroc(score, np.zeros(4, bool)) is None and auroc(score, np.ones(4, bool)) is None


@given(st.lists(st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_the_normalised_mann_whitney_statistic(rows):
    score, positive = np.array([s for s, _ in rows]), np.array([p for _, p in rows])
    hits, misses = score[positive], score[~positive]
    if len(hits) and len(misses):
        statistic = stats.mannwhitneyu(hits, misses, method="asymptotic").statistic
        assert auroc(score, positive) == pytest.approx(statistic / (len(hits) * len(misses)))


def test_mean_and_error_of_few():
    assert mean_and_error([]) == (None, None) and mean_and_error([2.0]) == (2.0, None)
    assert mean_and_error([1.0, 3.0]) == (2.0, pytest.approx(1.96))


def test_concentration_by_hand():
    rows = rollouts([5, 5], [(-1, -1)] * 2)
    values = np.array([[-6, 1, 1, 0, 0], [0, 0, 0, 0, 2]], np.float32)
    answers = np.array([[False] * 5, [False] * 4 + [True]])
    assert concentration(values, rows, answers) == {"top_1_percent": 0.6, "top_10_percent": 0.6, "answer": 0.2}
    assert set(concentration(0 * values, rows, answers).values()) == {None}


def test_added_is_beyond_the_rows_advantage():
    rows = rollouts([3], [(-1, -1)])
    credit = Credit(np.array([-3.0], np.float32), np.array([[-3, -3 - 1e-6, -3.5, 0, 0]], np.float32), {})
    np.testing.assert_array_equal(added(credit, rows.mask), np.array([[0, 0, -0.5, 0, 0]], np.float32))
    left_out = Credit(credit.advantage, 0 * credit.token_advantage, {})  # a row that the loss does not count
    assert not added(left_out, 0 * rows.mask).any()


@given(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4), st.integers(0, 3))
def test_padding_never_counts(values, start):
    values = np.array([values], np.float32)
    narrow, wide = (rollouts([4], [(start, start + 1)], width) for width in (4, 9))
    padded = np.pad(values, ((0, 0), (0, 5)), constant_values=-99)
    assert first_error(values, narrow) == first_error(padded, wide)
    none = np.zeros(padded.shape, bool)
    assert concentration(values, narrow, none[:, :4]) == concentration(padded, wide, none)


def test_the_gap_inside_the_first_error_by_hand():
    """Row 1 has no other token, the error of row 2 is not known, and row 3 has no context."""
    rows = rollouts([4, 2, 5, 3], [(1, 3), (0, 2), (-1, -1), (0, 1)])
    gap = np.array([[1, -2, -4, 3, 9], [5, 5, 0, 0, 0], [7] * 5, [8] * 5], np.float32)
    found = gap_at_error(gap, rows, np.array([True, True, True, False]))
    assert found == {"rows": 1, "wrong": -3, "wrong_error": None, "elsewhere": 2, "elsewhere_error": None}
    assert gap_at_error(gap, rows, np.ones(4, bool))["wrong"] == pytest.approx((-3 + 8) / 2)
    assert gap_at_error(gap, rows, np.zeros(4, bool))["wrong"] is None


def test_tokens_with_a_digit():
    tokenizer = embedded_tokenizer(["add", "is"])
    ids = tokenizer.encode("add 12 is", add_special_tokens=False)
    rows = rollouts([len(ids) - 1], [(-1, -1)], width=len(ids))
    rows = dataclasses.replace(rows, response=np.array([ids], np.int32))
    expected = [any(c.isdigit() for c in tokenizer.decode([i])) for i in ids[:-1]]
    assert sum(expected) == 2 and digit_tokens(rows, tokenizer)[0].tolist() == [*expected, False]
