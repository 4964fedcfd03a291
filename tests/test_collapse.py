"""What the loop does when the collapse monitor fires: roll back and stop, and the same again after a kill."""

import json
import shutil

import pytest

from amrsd_jax.report.read import read
from amrsd_jax.train import train
from tests import runs
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


def config(action="rollback", **fields):
    """Any credit at all is too much on few tokens: the monitor fires at every second step."""
    config = tiny_config(steps=6, monitor__window=1, monitor__patience=2, monitor__rollbacks=1, **fields)
    config.monitor.mass.update(action=action, threshold=1e-3)
    return config


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """Fires at step 2, goes back to step 0, and fires again at step 4, when it may not go back any more."""
    workdir = runs.fresh(finished, tmp_path_factory.mktemp("rollback") / "run")
    train(config(**runs.EVERY_STEP), workdir)
    return workdir


def progress(workdir, step):
    """The host's progress in a checkpoint, without times."""
    saved = json.loads((workdir / "checkpoints" / str(step) / "run" / "metadata").read_text())
    return {name: value for name, value in saved.items() if name not in ("seconds", "wall_seconds")}


def test_a_rollback_restores_every_bit_and_goes_on_with_new_prompts(run):
    """The state after it, optimiser included, is that of step 0; step and position are not."""
    start, moved, restored, continued = (runs.leaves(run, step) for step in range(4))
    assert all((a == b).all() for a, b in zip(start, restored, strict=True))
    for other in (moved, continued):
        assert any((a != b).any() for a, b in zip(start, other, strict=True))
    assert progress(run, 0)["good"] == progress(run, 1)["good"] == 0  # the signal was beyond its threshold at step 1
    after = progress(run, 2)
    assert (after["step"], after["position"], after["good"]) == (2, 8, 2) and after["tracks"] == {}
    problems = [{row["problem_id"] for row in runs.rollouts(run, step)} for step in (1, 2, 3, 4)]
    assert len(set.union(*problems)) == sum(map(len, problems)) == 16


def test_a_rollback_too_many_stops_the_run_and_it_stays_stopped(run):
    trained = runs.metrics(run, "train")
    assert [(row["step"], row["monitor/mass_fired"]) for row in trained] == [(1, 0), (2, 1), (3, 0), (4, 1)]
    results = json.loads((run / "results.json").read_text())
    value = trained[-1]["monitor/mass"]
    assert results["stopped"] == {"signal": "mass", "step": 4, "value": value, "threshold": 1e-3}
    assert results["rollbacks"] == [2] and results["steps"] == results["eval"]["final"]["step"] == 4
    assert any("stopped the run at step 4: mass" in note for note in read(run).notes)

    before = (run / "metrics.jsonl").read_text()
    assert train(config(**runs.EVERY_STEP), run)["stopped"] == results["stopped"]
    assert (run / "metrics.jsonl").read_text() == before


def test_a_run_killed_before_its_rollback_reaches_the_same_end(finished, run, tmp_path, monkeypatch):
    """The checkpoint has the first of two alarming steps; the good one is kept though only the newest should be."""
    workdir = runs.fresh(finished, tmp_path / "run")
    fields = dict(checkpoint__every=1, checkpoint__keep=1)
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_save(patch, -1, runs.kill)  # only waits for each
        runs.after_metrics(patch, 2, runs.kill)
        train(config(**fields), workdir)
    train(config(**fields), workdir)
    runs.assert_same_run(run, workdir)
    assert progress(workdir, 4) == progress(run, 4)


def test_a_rollback_to_a_damaged_checkpoint_stops_the_run(finished, tmp_path, monkeypatch, capsys):
    workdir = runs.fresh(finished, tmp_path / "run")
    runs.after_save(monkeypatch, -1, runs.kill)  # only waits for each
    runs.after_metrics(monkeypatch, 1, lambda: shutil.rmtree(workdir / "checkpoints" / "0" / "run"))
    results = train(config(**runs.EVERY_STEP), workdir)
    assert (results["stopped"]["step"], results["rollbacks"]) == (2, [])
    assert "the checkpoint of step 0 is damaged: no run" in capsys.readouterr().err
