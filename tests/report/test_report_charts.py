"""Charts: numbers as people write them, gaps that stay gaps, distinct colours, and SVG files in two schemes."""

import itertools
from xml.etree import ElementTree

import pytest
from synthetic_run import timeline_record

from amrsd_jax.report import charts, timeline
from amrsd_jax.report.charts import Series, lines, number, svg


def rows_with(chart, *fields):
    """The first data of a chart whose rows have these fields."""
    return next(rows for rows in charts.spec(chart)["datasets"].values() if set(fields) <= set(rows[0]))


def stops(chart):
    """{first line of the tooltip: {name: text}} of a chart."""
    spec = charts.spec(chart)
    strips = spec["layer"][-1]["layer"][-1]
    names = {item["field"]: item["title"] for item in strips["encoding"]["tooltip"][1:]}
    return {row["head"]: {names[f]: row[f] for f in names if row[f] != charts.DASH} for row in rows_with(chart, "head")}


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.125, True, "12.5%"), (0.0312, False, "0.0312"), (12000.0, False, "12,000"), (123456.7, False, "123,457"),
        (3e-6, False, "3e-6"), (2.5e9, False, "2.5e9"), (-0.5, False, "−0.5"), (0.0, False, "0"), (None, False, "–"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_a_person_would(value, percent, text):
    assert number(value, percent) == text


def test_values_intervals_and_gaps_are_drawn():
    mean = Series("mean", [0, 1, 2], [0.25, None, 0.5], [0.2, None, 0.4], [0.3, None, 0.6])
    chart = lines([mean, Series("b", [1], [0.1])], percent=True)
    rows = [(row["series"], row["x"], row["y"], row.get("low"), row.get("high")) for row in rows_with(chart, "series")]
    assert rows[:3] == [("mean", 0, 0.25, 0.2, 0.3), ("mean", 1, None, None, None), ("mean", 2, 0.5, 0.4, 0.6)]
    assert rows[3:] == [("b", 1, 0.1, None, None)]
    wanted = {"0": {"mean": "25% (20% to 30%)"}, "1": {"b": "10%"}, "2": {"mean": "50% (40% to 60%)"}}
    assert stops(chart) == wanted


def test_a_lone_point_in_a_long_line_is_marked():
    values = [1.0] * 15 + [None, 2.0, None]
    rows = rows_with(lines([Series("a", range(18), values)]), "series")
    assert [row["x"] for row in rows if row.get("dot")] == [16]


def test_no_two_series_share_a_colour():
    many = [Series(str(i), [0], [1.0], colour="blue" if i == 3 else "") for i in range(len(charts.SERIES))]
    spec = charts.spec(lines(many))
    colours = spec["layer"][0]["encoding"]["color"]["scale"]["range"]
    assert len(set(colours)) == len(many) and colours[3] == charts.colour("blue")
    for wrong in ([*many, Series("more", [0], [1.0])], [Series("a", [0], [1.0]), Series("a", [0], [2.0])]):
        with pytest.raises(ValueError, match="different names and colours"):
            lines(wrong)
    with pytest.raises(ValueError, match="no value"):
        lines([Series("a", [0, 1], [None, None])])


def test_a_histogram_reaches_its_outer_edges_and_survives_a_logarithmic_axis():
    rows = rows_with(lines([Series("a", [0.5, 1.5, 2.5], [0.5, 0.0, 0.05], mark="steps")], log=True), "series")
    assert [(row["x"], row["y"]) for row in rows] == [(0, 0.5), (0.5, 0.5), (1.5, None), (2.5, 0.05), (3, 0.05)]


def test_svg_files_are_deterministic_valid_and_have_two_schemes():
    """Clipped parts have identifiers that Vega numbers on from chart to chart."""
    first, second = (svg(lines([Series('<b>"&', [0, 1], [1.0, 2.0])], title="<t>", width=300)) for _ in range(2))
    assert first == second and "<t>" in [node.text for node in ElementTree.fromstring(first).iter()]
    light, dark = charts.PALETTE["blue"]
    assert f'stroke="{light}"' in first and f'[stroke="{light}"]{{stroke:{dark}}}' in first


def test_cells_of_a_matrix_saturate_at_their_reach():
    chart = charts.matrix(["a"], ["a", "b", "c"], [[2.0, None, -0.25]], reach=0.5)
    rows = rows_with(chart, "sign")
    assert [(row["column"], row["sign"], row["depth"]) for row in rows] == [("a", "above", 1), ("c", "below", 0.5)]


def test_a_step_is_laid_out_in_time():
    """The sampler is busy for 6 s: 32 slots for 3 s and 16 for 3 s with rollouts, 12 for 2 s with reflections."""
    record = timeline_record(7)
    assert timeline.utilisation(record) == pytest.approx((32 * 3 + 16 * 3 + 12 * 2) / (6 * 32))
    chart = timeline.draw("Step 7", record)
    spans = [(row["name"], row["x"], row["end"]) for row in rows_with(chart, "end")]
    assert ("update 2.05 s", 7.75, 9.8) in spans and ("verify on the host 0.75 s", 4.0, 4.5) in spans
    busy = rows_with(chart, "low", "high")
    area = {}
    for row, following in itertools.pairwise(busy):
        if row["name"] == following["name"]:
            area[row["name"]] = area.get(row["name"], 0) + (row["high"] - row["low"]) * (following["x"] - row["x"])
    assert area == pytest.approx({"rollouts in up to 32 slots": 144, "reflections in up to 12 slots": 24})
    both = {"rollouts": "16 of 32 slots", "reflections": "12 of 32 slots"}
    assert stops(chart)["4.22 s"] == {"phase": "sample, 0.01 s to 6 s", "host": "verify, 4 s to 4.5 s"} | both
    colours = charts.spec(chart)["layer"][0]["encoding"]["color"]["scale"]["range"]
    assert len(set(colours)) == len(colours)


def test_steps_share_an_axis_and_one_may_have_sampled_nothing():
    empty = timeline_record(1) | {"seconds": 5.0, "phases": [["update", 0.0, 5.0]], "beside": [], "busy": {}}
    text = svg(timeline.together({"grpo": empty, "amrsd <2>": timeline_record(2)}))
    texts = [node.text for node in ElementTree.fromstring(text).iter()]
    assert "grpo: 5 s" in texts and "amrsd <2>: 10 s" in texts and timeline.utilisation(empty) is None
