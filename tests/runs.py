"""Whole runs to test with: what they left, whether two are the same, and how to end one at some line."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pyarrow.parquet as pq

from amrsd_jax.files import read_json_lines
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.metrics import Metrics

EVERY_STEP = dict(checkpoint__every=1, checkpoint__keep=9, report__rollouts_every=1)  # a run that keeps all it can
RATES = ("tokens/s", "tokens/sampled_per_s")


def fresh(finished, folder):
    """Returns a new workdir that holds the warm-up of a finished run."""
    for part in ("warmup", "tokenizer"):
        shutil.copytree(finished / part, folder / part)
    return folder


def metrics(workdir, kind=None):
    """Returns the rows of metrics of a kind, or all, without times."""
    return [
        {name: value for name, value in row.items() if not name.startswith("seconds/") and name not in RATES}
        for row in read_json_lines(workdir / "metrics.jsonl")
        if kind in (None, row["kind"])
    ]


def rollouts(workdir, step):
    """Returns the saved rows of a step."""
    return pq.read_table(workdir / "rollouts" / f"step_{step:05d}.parquet").to_pylist()


def leaves(workdir, step):
    """Returns every array of a checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.leaves(checkpointer.restore((workdir / "checkpoints" / str(step) / "state").absolute()))


def assert_same_state(a, b, step):
    for x, y in zip(leaves(a, step), leaves(b, step), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_same_run(a, b, step=4):
    """Checks that two runs ended after `step` steps in the same state, with the same metrics and a timeline of every step."""
    assert metrics(a) == metrics(b)
    timelines = [[line["step"] for line in read_json_lines(workdir / "timeline.jsonl")] for workdir in (a, b)]
    assert timelines == [list(range(1, step + 1))] * 2
    assert_same_state(a, b, step)


class Killed(BaseException):
    """Stands for the end of the process: nothing of the package catches it."""


def kill():
    raise Killed


def after_metrics(monkeypatch, step, act):
    """Calls `act` when the training metrics of a step are written."""
    write = Metrics.write

    def patched(self, kind, at, values):
        write(self, kind, at, values)
        if (kind, at) == ("train", step):
            act()

    monkeypatch.setattr(Metrics, "write", patched)


def after_save(monkeypatch, step, act):
    """Calls `act` when the checkpoint of a step is complete; every save is waited for, as its writer would outlive a kill."""
    save = Checkpoints.save

    def patched(self, at, *args, **named):
        save(self, at, *args, **named)
        self._manager.wait_until_finished()
        if at == step:
            act()

    monkeypatch.setattr(Checkpoints, "save", patched)
