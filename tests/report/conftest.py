"""Fixtures of the report's tests: a finished synthetic run."""

import json
import random
import shutil

import pytest
from synthetic_run import (
    CONFIG,
    ENVIRONMENT,
    RESULTS,
    eval_record,
    rollout,
    timeline_record,
    train_record,
    write_lines,
    write_rollouts,
)

from amrsd_jax import report


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of 40 steps, with rollouts of three, and its report; not to be written to."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("report") / "run"
    path.mkdir()
    for name, value in (("config", CONFIG), ("results", RESULTS), ("environment", ENVIRONMENT)):
        (path / f"{name}.json").write_text(json.dumps(value))
    evals = [eval_record(step, 0.2 + step / 100) for step in (0, 20, 40)]
    write_lines(path / "metrics.jsonl", [*evals, *map(train_record, range(1, 41))])
    write_lines(path / "timeline.jsonl", list(map(timeline_record, range(1, 41))))
    for step in (1, 20, 40):
        write_rollouts(path, step, [rollout(step, row, rng) for row in range(24)])
    report.write(path)
    return path


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="session")
def long(finished, tmp_path_factory):
    """Writes the report of a run with 64 rollouts of 8,192 tokens at each of three steps, of which a page holds parts of two."""
    workdir = shutil.copytree(finished, tmp_path_factory.mktemp("long") / "run")
    row = rollout(1, 1, random.Random(0)) | {"question": "Why? " * 400}
    row |= {name: value * 512 for name, value in row.items() if isinstance(value, list)}
    for step in (1, 20, 40):
        write_rollouts(workdir, step, [row | {"row": i} for i in range(64)])
    return report.write(workdir)


@pytest.fixture
def rng():
    return random.Random(0)
