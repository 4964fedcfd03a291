"""Steps laid out in time: bars and areas have the lengths of their numbers, and panels share an axis."""

from xml.etree import ElementTree

import pytest
from synthetic_run import timeline_record

from amrsd_jax.report import timeline
from amrsd_jax.report.theme import phase_colour

SVG = "{http://www.w3.org/2000/svg}"
SECOND = (timeline.WIDTH - timeline.LEFT - timeline.RIGHT) / 10  # ten seconds across


def of_class(tree, kind, name):
    return [node for node in tree.iter(SVG + kind) if node.get("class") == name]


def bars(tree, name, height):
    """(begin, end) in user units of the bars of a phase in the lane of that height."""
    found = [r for r in of_class(tree, "rect", phase_colour(name)) if float(r.get("height")) == height]
    return [(float(r.get("x")), float(r.get("x")) + float(r.get("width"))) for r in found]


def area(polygon):
    """By the shoelace formula, in user units."""
    points = [tuple(map(float, pair.split(","))) for pair in polygon.get("points").split()]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True))) / 2


def test_bars_and_areas_have_the_lengths_of_their_numbers():
    tree = ElementTree.fromstring(timeline.draw("Step 7", timeline_record(7)))
    at = [timeline.LEFT + SECOND * t for t in (7.75, 9.8, 3.0, 3.25, 4.0, 4.5)]
    assert bars(tree, "learn", timeline.PHASE) == [pytest.approx(at[:2], abs=0.02)]
    assert bars(tree, "verify", timeline.HOST) == [pytest.approx(at[2:4], abs=0.02), pytest.approx(at[4:], abs=0.02)]
    assert len(bars(tree, "credit", timeline.PHASE)) == 2
    slot = timeline.SLOTS / 32
    rollouts, reflections = (of_class(tree, "polygon", phase_colour(name))[0] for name in ("sample", "reflect"))
    assert area(rollouts) == pytest.approx((32 * 3 + 16 * 3) * SECOND * slot, rel=1e-3)
    assert area(reflections) == pytest.approx(12 * 2 * SECOND * slot, rel=1e-3)


def test_texts_tell_seconds_and_slots():
    """In 5.99 s of sampling 32 x 3 + 16 x 3 slot-seconds went to rollouts, 12 x 2 to reflections: 168 of 191.68."""
    record = timeline_record(7)
    assert timeline.sampling(record) == pytest.approx({"rollouts": 144 / 5.99, "reflections": 24 / 5.99})
    texts = [node.text for node in ElementTree.fromstring(timeline.draw("Step 7", record)).iter(SVG + "text")]
    told = {
        "sample 5.99 s",
        "credit 0.07 s",
        "verify on the host 0.75 s",
        "rollouts 24 slots",
        "reflections 4.01 slots",
    }
    assert told <= set(texts)
    assert "Step 7: 10 s, slots 87.6% full while sampling" in texts


def test_late_reflections_are_no_part_of_sampling():
    record = timeline_record(7)
    record["busy"]["reflections"] = [0.0] * 125 + [8.0] * 4 + [0.0] * 71
    assert timeline.sampling(record)["reflections"] == 0
    record["phases"] += [["sample", 12.0, 15.0], ["reflect", 15.0, 20.0]]  # two steps in one timeline of 20 s
    record |= {"seconds": 20.0, "busy": {name: busy * 2 for name, busy in record["busy"].items()}}
    assert timeline.sampling(record)["reflections"] == 0


def test_panels_share_an_axis():
    """A step of half as many seconds is half as wide."""
    short = timeline_record(1)
    short |= {"seconds": 5.0, "phases": [["sample", 0.0, 5.0]], "beside": []}
    text = timeline.together({"grpo": short, "amrsd <2>": timeline_record(1)})
    tree = ElementTree.fromstring(text)
    first, second = tree.findall(SVG + "g")
    assert first.find(SVG + "text").text.startswith("grpo: 5 s") and second.find(SVG + "text").text.startswith(
        "amrsd <2>: 10 s"
    )
    assert bars(first, "sample", timeline.PHASE) == [pytest.approx((timeline.LEFT, timeline.LEFT + 5 * SECOND))]
    assert bars(second, "report", timeline.PHASE)[0][1] == pytest.approx(timeline.LEFT + 10 * SECOND, abs=0.02)
    assert "var(--" not in text and "#7db3ea" in text  # colours written out, the dark ones too


def test_a_step_that_sampled_nothing_is_drawn():
    empty = timeline_record(1) | {"phases": [["learn", 0.0, 10.0]], "beside": [], "busy": {}}
    text = timeline.draw("Step 1", empty)
    assert "full while sampling" not in text and ElementTree.fromstring(text).find(f".//{SVG}polygon") is None
