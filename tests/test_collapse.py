"""What the loop does when the collapse monitor fires: stop, roll back, and the same again after a kill."""

import json
import shutil

import numpy as np
import pytest

from amrsd_jax import train as loop
from amrsd_jax.report.read import read
from amrsd_jax.train import train
from tests.test_train import Killed, Metrics, assert_same_run, leaves, rows
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


def watched(action, **fields):
    """Any credit at all is too much on few tokens: fires at the second step of a stretch. Every step is saved."""
    config = tiny_config(monitor__window=1, monitor__patience=2, monitor__rollbacks=1, **fields)
    config.checkpoint.every = 1
    config.monitor.mass.update(action=action, threshold=1e-3)
    return config


@pytest.fixture(scope="module")
def make_workdir(finished, tmp_path_factory):
    """Fresh workdirs that already hold the warm-up."""

    def make(name):
        workdir = tmp_path_factory.mktemp(name) / "run"
        for part in ("warmup", "tokenizer"):
            shutil.copytree(finished / part, workdir / part)
        return workdir

    return make


@pytest.fixture(scope="module")
def rolled_back(make_workdir):
    """Fires at step 2, goes back to step 0, and fires again at step 4, when it may not go back any more."""
    workdir = make_workdir("rolled_back")
    train(watched("rollback", steps=6, checkpoint__keep=1), workdir)
    return workdir


def remembered(workdir, step):
    return json.loads((workdir / "checkpoints" / str(step) / "run" / "metadata").read_text())


def trained(workdir):
    return [row for row in rows(workdir) if row["kind"] == "train"]


def test_a_warning_changes_nothing_but_the_record(finished, make_workdir, capsys):
    workdir = make_workdir("warned")
    train(watched("warn", checkpoint__keep=9), workdir)
    for a, b in zip(leaves(finished, 4), leaves(workdir, 4), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["monitor/mass_fired"] for row in trained(workdir)] == [0, 1, 1, 1]
    assert capsys.readouterr().err.count("collapse monitor, step 2: mass ") == 1
    assert any("mass from step 2 on" in note for note in read(workdir).notes)


def test_a_stop_saves_evaluates_and_stays(finished, make_workdir):
    workdir = make_workdir("stopped")
    results = train(watched("stop", checkpoint__keep=9), workdir)
    assert results["steps"] == 2 and results["eval"]["final"]["step"] == 2
    value = trained(workdir)[1]["monitor/mass"]
    assert results["stopped"] == {"signal": "mass", "step": 2, "value": value, "threshold": 1e-3}
    assert json.loads((workdir / "results.json").read_text())["stopped"] == results["stopped"]
    assert (workdir / "rollouts" / "step_00002.parquet").exists()
    for a, b in zip(leaves(finished, 2), leaves(workdir, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    before = (workdir / "metrics.jsonl").read_text()
    again = train(watched("stop", checkpoint__keep=9), workdir)
    assert again["stopped"] == results["stopped"] and again["steps"] == 2
    assert (workdir / "metrics.jsonl").read_text() == before
    assert any("stopped the run at step 2: mass" in note for note in read(workdir).notes)


def test_a_rollback_restores_every_bit_and_goes_on_with_fresh_prompts(make_workdir, monkeypatch):
    """The state after it, optimiser included, is that of step 0; step, position and count are not."""
    workdir = make_workdir("rollback")
    drawn = []
    original = loop.draw
    monkeypatch.setattr(loop, "draw", lambda *args: drawn.append(original(*args)) or drawn[-1])
    results = train(watched("rollback", steps=3, checkpoint__keep=9), workdir)
    start, moved, back, gone_on = (leaves(workdir, step) for step in range(4))
    for a, b in zip(start, back, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (moved, gone_on):
        assert any((a != b).any() for a, b in zip(start, other, strict=True))
    assert results["rollbacks"] == [2] and results["stopped"] is None
    assert (
        remembered(workdir, 0)["good"] == remembered(workdir, 1)["good"] == 0
    )  # at step 1 it was beyond the threshold
    after = remembered(workdir, 2)
    assert (after["step"], after["position"], after["good"]) == (2, 8, 2) and after["tracks"] == {}
    problems = [{problem.id for problem in each.rollouts.problems} for each in drawn]
    assert len(problems[0] | problems[1] | problems[2]) == sum(map(len, problems))
    assert [row["step"] for row in trained(workdir)] == [1, 2, 3]


def test_a_rollback_too_many_stops(rolled_back):
    results = json.loads((rolled_back / "results.json").read_text())
    assert results["rollbacks"] == [2] and results["stopped"]["step"] == results["steps"] == 4
    assert [row["monitor/mass_fired"] for row in trained(rolled_back)] == [0, 1, 0, 1]
    assert any("went back after step 2" in note for note in read(rolled_back).notes)


def test_a_run_killed_around_a_rollback_reaches_the_same_end(rolled_back, make_workdir, monkeypatch):
    """Three kills: with a streak of one in the checkpoint, after the rollback, and before the stop. Only the newest checkpoint
    is kept, besides the good one."""
    workdir = make_workdir("killed")
    original, save = Metrics.write, loop.Checkpoints.save
    for at in (2, 3, 4):

        def write(self, kind, step, values, at=at):
            original(self, kind, step, values)
            if (kind, step) == ("train", at):
                raise Killed

        def save_and_wait(self, *args):  # in one process the writer of the "killed" run would live on
            save(self, *args)
            self._manager.wait_until_finished()

        monkeypatch.setattr(Metrics, "write", write)
        monkeypatch.setattr(loop.Checkpoints, "save", save_and_wait)
        with pytest.raises(Killed):
            train(watched("rollback", steps=6, checkpoint__keep=1), workdir)
        monkeypatch.undo()
    train(watched("rollback", steps=6, checkpoint__keep=1), workdir)
    assert_same_run(rolled_back, workdir)
    ours, theirs = ({**remembered(w, 4), "seconds": 0, "wall_seconds": 0} for w in (rolled_back, workdir))
    assert ours == theirs and ours["tracks"]["mass"]["streak"] == 2
