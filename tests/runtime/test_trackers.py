"""TensorBoard and Weights & Biases hold a run's config, metrics and rollouts, and no failure there ends a run."""

import json
import struct
import sys
import types

import pytest

from amrsd_jax.runtime import trackers
from amrsd_jax.runtime.metrics import Metrics
from amrsd_jax.runtime.workdir import config_json
from amrsd_jax.sections import ConfigError
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from tests import runs
from tests.tiny import tiny_config


def row(number, reward, reflection="carry the 1"):
    return dict(
        step=3, question=f"question {number}", answer="12", response=f"response {number}\n#### {number}", reward=reward,
        verdict="wrong", advantage=0.5, reflection_kind="critique", reflection_status="ok", reflection=reflection,
    )  # fmt: skip


ROWS = [row(number, reward) for number, reward in enumerate([0.0, 1.0, 0.0, 0.5, 1.0, 0.0])]


def records(data, position, block=None):
    """Yields the payloads of TensorBoard's event file, or with `block` those of W&B's file, which has LevelDB's log format."""
    whole = b""
    while position < len(data):
        if block is None:
            (size,) = struct.unpack_from("<Q", data, position)
            yield data[position + 12 : position + 12 + size]
            position += size + 16
        elif (left := block - position % block) < 7:
            position += left
        else:
            _, size, kind = struct.unpack_from("<IHB", data, position)
            whole += data[position + 7 : position + 7 + size]
            position += 7 + size
            if kind in (1, 4):  # whole, or the last part
                yield whole
                whole = b""


def test_tensorboard_has_the_config_and_samples_of_rollouts(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    (tmp_path / "config.json").write_text('{"steps": 7}')
    metrics = Metrics(tmp_path, -1)
    metrics.write("train", 3, {"reward/mean": 0.5, "reflection/usable": None})
    metrics.rollouts(3, ROWS)
    metrics.close({"steps": 3})
    values = {}
    for file in (tmp_path / "tensorboard").iterdir():
        for payload in records(file.read_bytes(), 0):
            event = Event.FromString(payload)
            values |= {value.tag: (event.step, value) for value in event.summary.value}
    texts = {tag: b"".join(value.tensor.string_val).decode() for tag, (_, value) in values.items()}
    assert values["reward/mean"][0] == 3 and values["reward/mean"][1].simple_value == 0.5
    assert "reflection/usable" not in values
    assert '"steps": 7' in texts["config/text_summary"]
    told = texts["rollouts/text_summary"]
    assert "    question 0\n" in told and "    #### 4\n" in told and "carry the 1" in told and "reward 1" in told


def test_samples_are_of_both_ends_and_show_a_reflection_where_there_is_one():
    names = [sample["question"] for sample in trackers.samples(ROWS)]
    assert names == ["question 0", "question 2", "question 1", "question 4"]
    assert trackers.samples([ROWS[0], ROWS[1], ROWS[0], ROWS[1]]) == ROWS[:2]
    assert trackers.samples(ROWS[:3]) == [ROWS[0], ROWS[2], ROWS[1]]
    assert trackers.samples([row(7, 1.0, reflection=""), row(8, 0.0)]) == [row(8, 0.0)]
    assert len(trackers.samples([row(number, 0.0, reflection="") for number in range(9)])) == 4


# ---------------------------------------------------------------- Weights & Biases


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Returns W&B's package, set to work without a network."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "outside"))
    return pytest.importorskip("wandb")


def offline_runs(workdir):
    """Returns what each offline run of a workdir holds, oldest first: id, config, history, last summary."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for folder in sorted((workdir / "wandb").glob("offline-run-*")):
        run = types.SimpleNamespace(id="", config={}, history=[], summary={}, folder=folder)
        (file,) = folder.glob("*.wandb")
        for payload in records(file.read_bytes(), 7, block=1 << 15):
            record = Record.FromString(payload)
            run.id = record.run.run_id or run.id
            for items, values in (
                (record.run.config.update, run.config),
                (record.summary.update, run.summary),
                (record.history.item, {}),
            ):
                for item in items:
                    at = values
                    *path, last = item.nested_key or [item.key]
                    for key in path:
                        at = at.setdefault(key, {})
                    at[last] = json.loads(item.value_json)
            if record.history.item:
                run.history.append(values)
        found.append(run)
    return found


def rollout_tables(run):
    return {
        sent["step"]: json.loads((run.folder / "files" / sent["rollouts"]["path"]).read_text())
        for sent in run.history
        if "rollouts" in sent
    }


@pytest.mark.slow
def test_a_run_is_continued_and_no_step_is_sent_twice(finished, tmp_path, offline, monkeypatch, capsys):
    """Killed after step 3, when the checkpoint is that of step 2: step 3 is computed again."""
    workdir = runs.fresh(finished, tmp_path / "run")
    config = tiny_config(tracker="wandb")
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_metrics(patch, 3, runs.kill)
        train(config, workdir)
    results = train(config, workdir)
    assert "step 4, evaluation on 16 problems of test: sampled " in capsys.readouterr().err
    first, second = offline_runs(workdir)
    assert first.id == second.id == json.loads((workdir / "wandb.json").read_text())["id"]
    for run in (first, second):
        assert {name: run.config[name] for name in config_json(validate(config))} == config_json(validate(config))
    rows = [values for run in (first, second) for values in run.history]
    for kind, name in (("train", "reward/mean"), ("eval", "eval/sampled")):
        sent = [values for values in rows if name in values]
        assert [values["step"] for values in sent] == ([1, 2, 3, 4] if kind == "train" else [0, 2, 4])
        for values, written in zip(sent, runs.metrics(workdir, kind), strict=True):
            del written["kind"]
            assert {name: values.get(name) for name in written} == written
    tables = rollout_tables(first) | rollout_tables(second)
    assert list(tables) == [1, 2, 4]
    for step, table in tables.items():
        assert table["columns"] == list(trackers.COLUMNS)
        expected = [[saved[name] for name in trackers.COLUMNS] for saved in runs.rollouts(workdir, step)]
        assert len(expected) == 32 and [line[1:4] for line in table["data"]] == [line[1:4] for line in expected]
    assert second.summary["eval"]["final"] == results["eval"]["final"]
    runs.assert_same_run(finished, workdir)


class Broken(types.ModuleType):
    """A W&B whose run, or whose every message, fails."""

    def __init__(self, failing):
        super().__init__("wandb")
        self.failing, self.calls = failing, []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append(name)
            if name == self.failing:
                raise OSError("no space left\non this device")
            return self

        return call

    id, summary, __spec__ = "x", {}, None


@pytest.mark.parametrize("failing, calls", [("init", ["init"]), ("log", ["init", "define_metric", "log"])])
def test_a_failure_is_told_once_and_the_metrics_go_on(tmp_path, monkeypatch, capsys, failing, calls):
    broken = Broken(failing)
    monkeypatch.setitem(sys.modules, "wandb", broken)
    (tmp_path / "config.json").write_text("{}")
    metrics = Metrics(tmp_path, -1, trackers.start("wandb", tmp_path))
    for step in (1, 2):
        metrics.write("train", step, {"reward/mean": 0.5})
        metrics.rollouts(step, ROWS)
    metrics.close({})
    told = capsys.readouterr().err
    assert told.count("Weights & Biases failed") == 1 and "without it: no space left\n" in told
    assert broken.calls == calls and len(runs.metrics(tmp_path)) == 2


def test_a_missing_package_is_refused_before_any_compute(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tracker = 'wandb'.*amrsd_jax\[wandb\]"):
        train(tiny_config(tracker="wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # as a folder of that name is imported
    with pytest.raises(ConfigError, match=r"amrsd_jax\[wandb\]"):
        trackers.require("wandb")
    trackers.require("")
