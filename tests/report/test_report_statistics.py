"""Gap statistics and the ledger on rows small enough to work out by hand."""

import numpy as np
import pyarrow as pa
import pytest
from synthetic_run import rollout, schema

from amrsd_jax.report import statistics

ROWS = [  # reward, gap, first_error_start, first_error_end
    (0.0, [1.0, -3.0, -1.0, 0.5], 1, 3),
    (0.0, [0.0, 0.0, -4.0, 1.5], 2, 3),
    (1.0, [0.5, 1.5, 0.5, 1.5], -1, -1),
    (0.0, None, 0, 2),
]


@pytest.fixture
def gaps():
    columns = zip(*ROWS, strict=True)
    return statistics.gaps([pa.table(dict(zip(statistics.GAP_COLUMNS, map(list, columns), strict=True)))])


def test_tokens_are_flattened_with_their_place(gaps):
    assert gaps.value.tolist() == [1, -3, -1, 0.5, 0, 0, -4, 1.5, 0.5, 1.5, 0.5, 1.5]
    assert gaps.row.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert gaps.place.tolist() == [0, 1, 1, 2, 0, 0, 1, 2, -1, -1, -1, -1]
    assert gaps.position[:4].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert gaps.correct.tolist() == [False] * 8 + [True] * 4


def test_means_are_over_rows_not_tokens(gaps):
    (series,) = statistics.around_first_error(gaps)
    # Row means: before 1 and 0, inside -2 and -4, after 0.5 and 1.5.
    assert series.y == pytest.approx([0.5, -3, 1])
    errors = 1.96 * np.std([[1, 0], [-2, -4], [0.5, 1.5]], axis=1, ddof=1) / 2**0.5
    assert series.low == pytest.approx(series.y - errors)
    assert series.high == pytest.approx(series.y + errors)


def test_gap_by_position(gaps):
    failed, correct = statistics.by_position(gaps)
    assert failed.x == [0.125, 0.375, 0.625, 0.875] and failed.y == pytest.approx([0.5, -1.5, -2.5, 1])
    assert correct.y == pytest.approx([0.5, 1.5, 0.5, 1.5])
    assert correct.low == [None] * 4  # one row has no standard error


def test_histogram_is_a_share_of_each_kind(gaps):
    failed, correct = statistics.histogram(gaps, bins=4)
    # The edges are quantiles just inside -4 and 1.5, so that the extreme tokens fall out.
    assert sum(failed.y) == pytest.approx(7 / 8) and sum(correct.y) == 1
    assert statistics.histogram(statistics.Gaps(np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3, bool), np.zeros(3)))[
        0
    ].y == [0, 1]


def test_too_many_tokens_are_thinned_by_rows():
    columns = {"reward": [0.0] * 9, "gap": [[float(i)] * 2 for i in range(9)]}
    table = pa.table(columns | {"first_error_start": [-1] * 9, "first_error_end": [-1] * 9})
    assert statistics.gaps([table], most=6).value.tolist() == [0, 0, 3, 3, 6, 6]


def test_a_column_without_any_gap_gives_no_tokens():
    table = pa.table({"reward": [1.0], "gap": [None], "first_error_start": [-1], "first_error_end": [-1]})
    assert len(statistics.gaps([table]).value) == 0 and len(statistics.gaps([]).value) == 0


def test_every_row_is_in_the_ledger_once(rng):
    names = ["advantage", "reflection_kind", "reflection_status", "gap", "reward", "finish_reason"]
    ways = [
        (1.0, "hint", "ok", [0.1], 1.0, "stop"),
        (-1.0, "critique", "ok", [0.1], 0.0, "length"),
        (-1.0, "critique", "ok", [0.1], 0.0, "stop"),
        (-1.0, "critique", "no_tag", None, 0.0, "stop"),
        (0.0, "", "not_needed", None, 1.0, "stop"),
        (0.5, "", "not_needed", None, 1.0, "truncated"),
        (0.5, "", "", [0.2], 1.0, "stop"),
    ]
    entries = statistics.ledger([pa.Table.from_pylist([dict(zip(names, way, strict=True)) for way in ways])])
    assert [(e.group, e.label, e.rows, e.correct, e.truncated) for e in entries] == [
        ("token", "usable critique", 2, 0, 1),
        ("token", "usable hint", 1, 1, 0),
        ("token", "teacher without a reflection", 1, 1, 0),
        ("sequence", "fallback: no tag", 1, 0, 0),
        ("sequence", "no reflection needed", 1, 1, 1),
        ("none", "advantage 0: equal rewards in the group", 1, 1, 0),
    ]
    many = [rollout(0, row, rng) for row in range(40)]
    assert sum(e.rows for e in statistics.ledger([pa.Table.from_pylist(many, schema(many[0]))])) == 40
