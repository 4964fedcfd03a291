"""Fixtures of the report's tests: a finished synthetic run."""

import json
import math
import random

import pytest
from synthetic_run import (
    CONFIG,
    RESULTS,
    eval_record,
    rollout,
    timeline_record,
    train_record,
    write_metrics,
    write_rollouts,
    write_timelines,
)


@pytest.fixture
def workdir(tmp_path):
    """A finished run of 60 steps, all laid out in time, with three logged steps of 24 rollouts."""
    rng = random.Random(0)
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "results.json").write_text(json.dumps(RESULTS))
    records = []
    for step in range(60):
        if step % 20 == 0:
            records.append(eval_record(step, 0.204 + 0.3 * math.sqrt(step / 60)))
        records.append(train_record(step, rng))
    write_metrics(path, [*records, eval_record(60, 0.618)])
    write_timelines(path, [timeline_record(step) for step in range(60)])
    for step in (0, 25, 45):
        write_rollouts(path, step, [rollout(step, row, rng) for row in range(24)])
    return path


@pytest.fixture
def rng():
    return random.Random(0)
