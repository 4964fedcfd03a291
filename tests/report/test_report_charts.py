"""Axes and marks: round ticks, gaps that stay gaps, charts of one point, and valid XML."""

import json
from xml.etree import ElementTree

import pytest

from amrsd_jax.report.axes import Scale, nice, number, x_axis, y_axis
from amrsd_jax.report.svg import Series, chart


def marks(text, kind):
    tree = ElementTree.fromstring(text)
    return [node for node in tree.iter() if node.get("class", "").split()[:1] == [kind]]


def coordinates(node):
    return [tuple(map(float, pair.split(","))) for pair in node.get("points").split()]


def hover(text):
    return json.loads(ElementTree.fromstring(text).get("data-hover"))


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.125, True, "12.5%"),
        (0.0312, False, "0.0312"),
        (12000.0, False, "12,000"),
        (123456.7, False, "123,457"),
        (3e-6, False, "3e-6"),
        (2.5e9, False, "2.5e9"),
        (-0.5, False, "−0.5"),
        (-2e-5, False, "−2e-5"),
        (0.0, False, "0"),
        (None, False, "–"),
    ],
)
def test_numbers_are_written_as_a_person_would(value, percent, text):
    assert number(value, percent) == text


def test_ticks_are_round_and_enclose_the_data():
    assert nice(0.13, 0.97, 4) == [0, 0.25, 0.5, 0.75, 1.0]
    assert x_axis([0, 7], False) == [0, 2, 4, 6, 8]
    assert x_axis([3], False) == [3, 4]  # a lone step still has an axis
    assert y_axis([0.2, 0.61], True, False) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert y_axis([5.0, 5.0], False, False)[0] < 5 < y_axis([5.0, 5.0], False, False)[-1]
    assert y_axis([0.0, 0.03, 0.4], False, True) == pytest.approx([0.01, 0.1, 1])


def test_scale_is_linear_or_logarithmic():
    assert Scale(0, 10, 100, 200)(2.5) == 125
    log = Scale(0.01, 1, 200, 100, log=True)
    assert (log(0.1), log(0)) == (150, 200)  # zero stands on the baseline


def test_a_gap_in_the_values_is_a_gap_in_the_line():
    lines = marks(chart([Series("a", range(20), [1.0] * 9 + [None] + [2.0] * 10)], title="t"), "line")
    assert [len(coordinates(line)) for line in lines] == [9, 10]


@pytest.mark.parametrize("points", [1, 2])
def test_few_points_are_drawn_as_marks_inside_the_plot(points):
    text = chart([Series("a", [5, 6][:points], [0.3, 0.4][:points])], title="t", percent=True)
    circles = marks(text, "mark")
    assert len(circles) == points
    assert all(46 <= float(c.get("cx")) <= 370 and 20 <= float(c.get("cy")) <= 204 for c in circles)


def test_bands_and_whiskers_follow_the_interval():
    x, y, low, high = [0, 1], [0.5, 0.5], [0.4, 0.25], [0.6, 1.0]
    band = coordinates(marks(chart([Series("a", x, y, low, high)], title="t", percent=True), "band")[0])
    assert len(band) == 4 and band[1][1] < band[0][1]  # the upper edge rises to the right
    text = chart([Series("a", x, y, low, high, mark="circle")], title="t", percent=True)
    lengths = [float(w.get("y1")) - float(w.get("y2")) for w in marks(text, "whisker")]
    assert lengths[1] / lengths[0] == pytest.approx(0.75 / 0.2, rel=1e-3)


def test_whiskers_of_one_step_stand_beside_each_other():
    series = [Series(n, [1], [0.5], [0.4], [0.6], mark=m) for n, m in (("a", "circle"), ("b", "diamond"))]
    first, second = marks(chart(series, title="t", percent=True), "whisker")
    assert float(second.get("x1")) - float(first.get("x1")) == 6


def test_a_histogram_draws_zero_on_the_baseline():
    text = chart([Series("a", [0.5, 1.5, 2.5], [0.5, 0.0, 0.5], mark="steps")], title="t", log=True)
    outline = coordinates(marks(text, "line")[0])
    ys = [y for _, y in outline]
    assert len(outline) == 8 and ys[0] == ys[3] == ys[4] == ys[7] == max(ys) and ys[1] == ys[6] < ys[0]


def test_the_readout_holds_the_values():
    series = [Series("mean", [0, 1], [0.25, None], [0.2, None], [0.3, None]), Series("b", [1], [0.125])]
    assert [stop[1:] for stop in hover(chart(series, title="t", percent=True))] == [
        ["step 0", [["mean", "25% (20% to 30%)"]]],
        ["step 1", [["b", "12.5%"]]],
    ]


def test_names_are_escaped_and_an_empty_chart_is_an_error():
    text = chart([Series('<b>"&', [0], [1.0]), Series("c", [0], [2.0])], title="<t>", y_label="<y>")
    assert "<b>" not in text and '<b>"&' in [node.text for node in ElementTree.fromstring(text).iter()]
    with pytest.raises(ValueError, match="reward: no value"):
        chart([Series("a", [0, 1], [None, None])], title="reward")
