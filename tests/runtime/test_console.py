"""Progress is shown where no terminal is attached too, and no line is redrawn there."""

import io
import sys

import pytest

from amrsd_jax.runtime import console


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass for the console only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def run(clock, seconds, total):
    for item in console.track(iter(range(total)), "work", total):
        clock[0] += seconds
        yield item


def test_a_line_each_tenth_but_not_within_five_seconds(clock, capsys):
    assert list(run(clock, 1.0, 100)) == list(range(100))
    told = capsys.readouterr().err
    assert "\r" not in told
    lines = told.splitlines()
    assert (
        lines[:2] == ["work: 10 of 100", "work: 20 of 100, 01:20 left"] and lines[-1] == "work: 90 of 100, 00:10 left"
    )
    assert len(lines) == 9
    list(run(clock, 1.0, 20))  # 2 of 20 are done in two seconds
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"work: {n} of 20" for n in (5, 10, 15)
    ]


def test_long_work_is_told_every_half_minute_and_short_work_not_at_all(clock, capsys):
    list(run(clock, 10.0, 60))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: 3 of 60" and lines[1] == "work: 6 of 60, 09:00 left"
    list(run(clock, 0.1, 40))
    assert capsys.readouterr().err == ""


def test_items_have_a_length_or_a_total(clock, capsys):
    assert list(console.track([1, 2], "work")) == [1, 2]
    with pytest.raises(TypeError):
        list(console.track(iter([1]), "work"))


def test_a_bar_on_a_terminal(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(run(clock, 60.0, 3)) == [0, 1, 2]
    drawn = sys.stderr.getvalue()
    assert "work:   0%" in drawn and "\r" in drawn and "work: 1 of 3" not in drawn
