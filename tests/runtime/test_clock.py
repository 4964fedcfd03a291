"""The clock's seconds by phase and lap, and the timeline of a step."""

import numpy as np
import pytest

from amrsd_jax.records import Completion, Request
from amrsd_jax.runtime.clock import BINS, Clock


@pytest.fixture
def tick(monkeypatch):
    """Sets the times that the clock reads, in order."""
    times = []
    monkeypatch.setattr("amrsd_jax.runtime.clock.time.perf_counter", lambda: times.pop(0))
    return times.extend


def completion(began, ended, row=0):
    return Completion(Request([1], row=row), 0, np.zeros(0, np.int32), np.zeros(0, np.float32), "stop", began, ended)


def test_a_clock_adds_up_by_phase_and_lap(tick):
    tick([0.0, 0.0, 1.0, 5.0, 7.0, 8.0, 10.0, 10.5, 11.0])
    clock = Clock({"sample": 100.0})
    with clock.phase("sample"):
        pass
    with clock.phase("update"):
        pass
    assert clock.lap() == {"sample": 1.0, "update": 2.0}
    with pytest.raises(KeyError), clock.phase("sample"):
        raise KeyError
    assert clock.lap() == {"sample": 0.5}
    assert clock.total == {"sample": 101.5, "update": 2.0}


def test_a_timeline_has_spans_and_busy_slots_from_the_start_of_the_step(tick):
    """Ten seconds in 200 intervals: two rows from 1 to 5, one of them to 7.02; a reflection from 5 to 8, beside a later phase."""
    tick([0.0, 100.0, 101.0, 105.0, 105.5, 107.0, 107.0, 110.0])
    clock = Clock()
    clock.lap()
    with clock.phase("sample"):
        with clock.beside("verify"):
            pass
        for ended in (105.0, 107.02):
            clock.row("rollouts", completion(101.0, ended))
    with clock.phase("reflect"):
        late = clock.watched("reflections", lambda requests: (completion(105.0, 108.0, r.row) for r in requests))
        assert [c.request.row for c in late([Request([1], row=7)])] == [7]
    timeline = clock.timeline(4)
    busy = timeline.pop("busy")
    assert timeline == {
        "seconds": 10.0,
        "phases": [["sample", 1.0, 7.0], ["reflect", 7.0, 10.0]],
        "beside": [["verify", 5.0, 5.5]],
        "slots": 4,
    }
    assert clock.step == {"sample": 6.0, "reflect": 3.0}  # the host's work beside is not counted twice
    assert busy["rollouts"] == [0] * 20 + [2] * 80 + [1] * 40 + [0.4] + [0] * 59
    assert busy["reflections"] == [0] * 100 + [1] * 60 + [0] * 40


def test_busy_slots_add_up_to_the_seconds_of_their_rows(tick):
    generator = np.random.default_rng(0)
    tick([0.0, 0.0, 8.0])
    clock, seconds = Clock(), generator.uniform(0.01, 3, 9)
    with clock.phase("sample"):
        for began, long in zip(generator.uniform(0, 5, 9), seconds, strict=True):
            clock.row("rollouts", completion(began, began + long))
    busy = clock.timeline(16)["busy"]["rollouts"]
    assert sum(busy) * 8 / BINS == pytest.approx(seconds.sum(), abs=0.005 * 8)


def test_an_empty_step_is_empty():
    assert Clock().timeline(4) == {"seconds": 0, "phases": [], "beside": [], "slots": 4, "busy": {}}
