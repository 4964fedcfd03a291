"""A clock adds up by phase and lap, and lays a step out in time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.runtime.clock import BINS, Clock
from amrsd_jax.sampling import Completion, Request


@pytest.fixture
def tick(monkeypatch):
    """Sets the host's seconds of each further look at the time."""
    times = []
    monkeypatch.setattr("amrsd_jax.runtime.clock.time.perf_counter", lambda: times.pop(0))
    return times.extend


def completion(began, ended, row=0):
    none = np.zeros(0, np.float32)
    return Completion(Request([1], row=row), 0, np.zeros(0, np.int32), none, none, "stop", began, ended)


def test_a_clock_adds_up_by_phase_and_lap(tick):
    tick([0.0, 0.0, 1.0, 5.0, 7.0, 8.0, 10.0, 10.5, 11.0])
    clock = Clock({"sample": 100.0})
    with clock.phase("sample"):
        pass
    with clock.phase("learn"):
        pass
    assert clock.lap() == {"sample": 1.0, "learn": 2.0}
    with pytest.raises(KeyError), clock.phase("sample"):
        raise KeyError
    assert clock.lap() == {"sample": 0.5}
    assert clock.total == {"sample": 101.5, "learn": 2.0}


def test_a_timeline_has_spans_and_busy_slots_from_the_start_of_the_step(tick):
    """Ten seconds in 200 stretches: two rows from 1 to 5, one of them to 7.02; a reflection from 5 to 8, asked for late."""
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
    found = clock.timeline(4)
    busy = found.pop("busy")
    assert found == {
        "seconds": 10.0,
        "phases": [["sample", 1.0, 7.0], ["reflect", 7.0, 10.0]],
        "beside": [["verify", 5.0, 5.5]],
        "slots": 4,
    }
    assert clock.step == {"sample": 6.0, "reflect": 3.0}  # the host's work beside is not counted twice
    assert busy["rollouts"] == [0] * 20 + [2] * 80 + [1] * 40 + [0.4] + [0] * 59
    assert busy["reflections"] == [0] * 100 + [1] * 60 + [0] * 40


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=9))
def test_busy_slots_add_up_to_the_seconds_of_their_rows(rows):
    clock = Clock()
    with clock.phase("sample"):
        start = clock._begin
        for began, seconds in rows:
            clock.row("rollouts", completion(start + began, start + began + seconds))
    clock._phases[0] = ("sample", start, start + 8)
    mean = np.array(clock.timeline(16)["busy"]["rollouts"])
    assert mean.sum() * 8 / BINS == pytest.approx(sum(seconds for _, seconds in rows), abs=0.005 * 8)


def test_an_empty_step_is_empty():
    assert Clock().timeline(4) == {"seconds": 0, "phases": [], "beside": [], "slots": 4, "busy": {}}
