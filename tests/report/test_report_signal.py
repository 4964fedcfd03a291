"""Statistics of gaps and uses, on rows small enough to work out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from amrsd_jax.report import signal

NAMES = ("reward", "gap", "first_error_start", "first_error_end")
ROWS = [
    (0.0, [1.0, -3.0, -1.0, 0.5], 1, 3), (0.0, [0.0, 0.0, -4.0, 1.5], 2, 3), (1.0, [0.5, 1.5, 0.5, 1.5], -1, -1),
    (0.0, None, 0, 2),
]  # fmt: skip


def scored(rows, **options):
    return signal.scored_rollouts(
        [pa.table(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True)))], **options
    )


def test_means_are_over_rollouts_not_tokens():
    (series,) = signal.around_first_error(scored(ROWS))
    # Means of the rollouts: before 1 and 0, inside -2 and -4, after 0.5 and 1.5.
    assert series.y == pytest.approx([0.5, -3, 1])
    errors = 1.96 * np.std([[1, 0], [-2, -4], [0.5, 1.5]], axis=1, ddof=1) / 2**0.5
    assert series.low == pytest.approx(series.y - errors) and series.high == pytest.approx(series.y + errors)


def test_gap_by_position():
    failed, correct = signal.by_position(scored(ROWS))
    assert failed.x == [0.125, 0.375, 0.625, 0.875] and failed.y == pytest.approx([0.5, -1.5, -2.5, 1])
    assert (
        correct.y == pytest.approx([0.5, 1.5, 0.5, 1.5]) and correct.low == [None] * 4
    )  # one row has no standard error


def test_histogram_is_a_share_of_each_outcome():
    failed, correct = signal.histogram(scored(ROWS), bins=4)
    # The edges are quantiles just inside -4 and 1.5, so that the extreme tokens fall out.
    assert sum(failed.y) == pytest.approx(7 / 8) and sum(correct.y) == 1
    assert signal.histogram(scored([(0.0, [0.0] * 3, -1, -1)]))[0].y == [0, 1]


def test_the_null_control_is_shown_beside_the_gap():
    table = pa.table(dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True)))
    table = table.append_column("null_gap", pa.array([[0.1, 0.0, 0.3, 0.0], [0.0] * 4, [0.0] * 4, None]))
    found = signal.scored_rollouts([table])
    assert [series.name for series in signal.by_position(found)] == ["failed", "correct", "null control"]
    assert signal.by_position(found)[2].y == pytest.approx([0.1 / 3, 0, 0.1, 0])
    assert signal.beyond(found, 0.2) == {"failed": 6 / 8, "correct": 1.0, "null control": 1 / 12}


def test_many_tokens_are_thinned_by_rollouts_and_no_gap_is_no_rollout():
    found = scored([(0.0, [float(i)] * 2, -1, -1) for i in range(9)], most=6)
    assert [r.gap[0] for r in found] == [0, 3, 6] and scored([(1.0, None, -1, -1)]) == []


def test_every_rollout_is_counted_in_one_use():
    names = ["advantage", "reflection_kind", "reflection_status", "gap", "reward", "finish_reason", "token_advantage"]
    rows = [
        (1.0, "hint", "ok", [0.1], 1.0, "stop", [1.0, 2.0]),
        (-1.0, "critique", "ok", [0.1], 0.0, "length", [-1.0, -1.0]),
        (-1.0, "critique", "ok", [0.1], 0.0, "stop", [-1.0, -2.0]),
        (-1.0, "critique", "no_tag", None, 0.0, "stop", [-1.0, -1.0 - 1e-7]),
        (0.0, "critique", "no_tag", None, 0.0, "stop", [0.0, 0.0]),  # of a rule that looks at rows without an advantage
        (0.0, "", "not_needed", None, 1.0, "stop", [0.0, 0.0]),
        (0.5, "", "not_needed", None, 1.0, "length", [0.5, 0.5]),
        (0.5, "", "not_needed", None, 1.0, "length", [0.0, 0.0]),  # left out by the loss
        (0.5, "", "not_needed", None, 1.0, "stop", [0.5, 0.0]),  # a rule without a teacher
        (0.5, "", "", [0.2], 1.0, "stop", [0.5, 0.7]),
    ]
    found = signal.uses([pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])])
    counted = {(use.level, use.reason): (use.rollouts, use.correct, use.truncated) for use in found}
    assert counted == {
        ("each token", "usable critique"): (1, 0, 0),
        ("whole rollout", "usable critique"): (1, 0, 1),  # a gap that the rule leaves alone everywhere
        ("each token", "usable hint"): (1, 1, 0),
        ("each token", "teacher without a reflection"): (1, 1, 0),
        ("each token", "no reflection needed"): (1, 1, 0),
        ("whole rollout", "unusable reflection: no tag"): (1, 0, 0),
        ("whole rollout", "no reflection needed"): (1, 1, 1),
        ("nothing", "unusable reflection: no tag"): (1, 0, 0),
        ("nothing", "no advantage"): (1, 1, 0),
        ("nothing", "truncated"): (1, 1, 1),
    }
    assert [use.level for use in found] == ["each token"] * 4 + ["whole rollout"] * 3 + ["nothing"] * 3
