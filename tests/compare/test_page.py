"""The data of the comparison page, from a tiny finished run."""

import numpy as np
import pytest

from amrsd_jax.compare import measures, page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(comparison):
    return page.token_data(comparison.rollouts, comparison.applied)


def test_tokens_have_the_credit_and_gap_of_every_method(comparison, data):
    for row in data["rows"]:
        i, n = row["row"], row["length"]
        assert len(row["tokens"]) == n == comparison.rollouts.mask[i].sum()
        for one, panel in zip(comparison.applied, row["panels"], strict=True):
            credit = panel["advantage"] + np.array(panel["added"])
            np.testing.assert_allclose(credit, one.credit.token_advantage[i, :n], atol=2e-3)
            if one.logprobs.scored[i]:
                np.testing.assert_allclose(panel["gap"], one.logprobs.gap[i, :n], rtol=1e-3, atol=1e-6)
            else:
                assert panel["gap"] is None


def test_noise_never_gets_the_full_colour(data):
    assert all(reach >= measures.TAU for method in data["methods"] for reach in method["reach"].values())
    assert len({method["reach"]["gap"] for method in data["methods"]}) == 1  # comparable between methods


def test_the_first_row_is_a_failure_on_which_methods_act(comparison, data):
    first = data["rows"][0]
    assert not first["correct"]
    methods = [
        name for name, panel in zip(comparison.values["methods"], first["panels"], strict=True) if any(panel["added"])
    ]
    assert len(methods) > len(comparison.applied) / 2


def test_long_responses_are_cut(comparison, monkeypatch):
    monkeypatch.setattr(page, "TOKENS", 3)
    for row in page.token_data(comparison.rollouts, comparison.applied)["rows"]:
        lengths = {len(row["tokens"]), *(len(panel["added"]) for panel in row["panels"])}
        assert lengths == {min(3, row["length"])}


def test_the_null_control_is_measured_on_the_rows_of_each_method(comparison):
    """The gap of the teacher's prompt without a text: it is that of the method whose context is `null`."""
    applied = {one.name: one for one in comparison.applied}
    control, amrsd = applied["hybrid@null"], applied["amrsd"]
    assert set(control.contexts.text) == {""} and control.logprobs.scored.all()
    np.testing.assert_allclose(control.null_gap, control.logprobs.gap, atol=1e-5)
    scored = amrsd.logprobs.scored[:, None]
    np.testing.assert_allclose(amrsd.null_gap, control.null_gap * scored, atol=1e-5)
    described = comparison.values["methods"]["amrsd"]
    assert described["null_gap"]["failed"]["tokens"] == described["gap"]["failed"]["tokens"]
    assert described["null_gap"]["failed"]["all"] != described["gap"]["failed"]["all"]
    assert not applied["grpo"].null_gap.any()


def test_gaps_are_summarised_over_rows(comparison):
    one = next(one for one in comparison.applied if one.logprobs.scored.any())
    failed = ~comparison.rollouts.correct & one.logprobs.scored
    mask = comparison.rollouts.mask[failed] > 0
    sizes = np.abs(one.logprobs.gap[failed])
    summary = measures.gaps(one, comparison.rollouts)["failed"]
    assert summary["tokens"] == mask.sum()
    assert summary["all"]["above_tau"] == pytest.approx((sizes[mask] > measures.TAU).mean())
    assert summary["all"]["mean_absolute"] == pytest.approx(
        np.mean([row[of].mean() for row, of in zip(sizes, mask, strict=True)]), rel=1e-5
    )
