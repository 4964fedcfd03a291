"""A workdir belongs to one config, one set of rows, one edition of the file format, and to one process at a time."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amrsd_jax import processes
from amrsd_jax.runtime.environment import write_environment
from amrsd_jax.runtime.workdir import claim, config_json, locked, read_config, read_tokenizer, release
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from tests.tiny import tiny_config


def test_a_workdir_is_claimed_once_and_resumed_by_the_same_config(tmp_path):
    workdir = tmp_path / "runs" / "a"
    assert not claim(workdir, validate(tiny_config()))
    assert [path.name for path in workdir.iterdir()] == ["config.json"]
    assert claim(workdir, validate(tiny_config()))


def test_a_run_may_be_resumed_with_another_tracker(tmp_path):
    """Also one that began before there was such a field."""
    claim(tmp_path, validate(tiny_config()))
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    del saved["tracker"]
    path.write_text(json.dumps(saved))
    assert claim(tmp_path, validate(tiny_config(tracker="wandb"))) and read_config(tmp_path).tracker == "wandb"
    assert claim(tmp_path, validate(tiny_config()))


def test_a_run_may_be_resumed_with_fewer_evaluations(tmp_path):
    """Also of benchmarks, which have the same period unless they name another."""
    task = {"name": "strings", "args": {}}

    def config(**fields):
        return validate(tiny_config(evaluation__benchmarks={"more": {"task": task}}, **fields))

    claim(tmp_path, config(evaluation__every=1))
    assert claim(tmp_path, config(evaluation__every=5, report__rollouts_every=7))
    assert read_config(tmp_path).evaluation.benchmarks["more"]["every"] == 5
    with pytest.raises(ConfigError, match="evaluation.samples"):
        claim(tmp_path, config(evaluation__every=5, evaluation__samples=9))


@pytest.mark.parametrize(
    "fields",
    [
        dict(loss__importance_cap=2, loss__old_logprobs="trainer", lora__rank=2, mesh__data=-1),
        dict(rule="sdpo", distill__alpha=1, chat_template={"a": [1, 2]}, architecture__rope_theta=1e6),
        dict(evaluation__benchmarks={"more": {"task": {"name": "strings", "args": {"letters": 4}}, "samples": 3}}),
    ],
)
def test_the_config_of_a_run_is_read_back(tmp_path, fields):
    config = validate(tiny_config(**fields))
    claim(tmp_path, config)
    assert validate(read_config(tmp_path)) == config


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    claim(tmp_path, validate(tiny_config()))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigError) as refusal:
        claim(tmp_path, validate(tiny_config("grpo", steps=31)))
    message = str(refusal.value)
    assert str(tmp_path) in message
    for field, saved, given in (("steps", 4, 31), ("credit.rule", "amrsd", "grpo")):
        assert any(field in line and repr(saved) in line and repr(given) in line for line in message.splitlines())
    assert "credit.args.tau" in message and "credit.normalize" not in message
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("written", [{"steps": 3, "loss": {"old_logp": "sampler"}}, {"format": 3, "steps": 3}, [1], []])
def test_a_workdir_of_another_format_is_refused(tmp_path, written):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(written))
    for attempt in (lambda: read_config(tmp_path), lambda: claim(tmp_path, validate(tiny_config()))):
        with pytest.raises(ConfigError) as refusal:
            attempt()
        assert str(path) in str(refusal.value) and "--workdir" in str(refusal.value)
    assert json.loads(path.read_text()) == written


@pytest.mark.parametrize(
    "damage", [{"steps": "x"}, {"rollout": 3}, {"loss": {"kl": "x"}}, {"chat_template": {"a.b": 1}}]
)
def test_a_damaged_value_is_a_config_error(tmp_path, damage):
    claim(tmp_path, validate(tiny_config()))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(ConfigError, match="config.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("differs", ["config", "rows"])
def test_processes_with_other_configs_or_rows_are_refused(tmp_path, monkeypatch, differs):
    config, rows = validate(tiny_config()), {"task": {"rows": 40}}
    others = {"config": config_json(validate(tiny_config(loss__kl=0.1))), "rows": {"task": {"rows": 17}}}
    message = {
        "config": "process 1 was started with another config.*\n.*loss.kl: 0.1 there, 0.0 here",
        "rows": "process 1 reads other rows.*\n.*17 there, 40 here",
    }[differs]

    def allgather(value):
        kind = "config" if isinstance(value, dict) and "steps" in value else "rows" if value == rows else ""
        return [value, others[kind] if kind == differs else value]

    monkeypatch.setattr(processes, "allgather", allgather)
    with pytest.raises(ConfigError, match=message):
        claim(tmp_path, config, rows)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_config(tmp_path)


def test_the_environment_is_that_of_the_first_start(tmp_path, monkeypatch):
    write_environment(tmp_path)
    first = json.loads((tmp_path / "environment.json").read_text())
    assert first["devices"] == "8 x cpu" and first["platform"] == "cpu"
    assert {"processor", "python", "jax", "jaxlib", "amrsd_jax", "commit", "started"} < first.keys()
    monkeypatch.setattr("jax.__version__", "later")
    write_environment(tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text()) == first


@pytest.mark.parametrize("damage", [b"", b'{"steps": ', b"\x00\x00", b"\xff\xfe", b"[" * 100_000, b"[]", "folder"])
def test_a_damaged_config_is_named(tmp_path, damage):
    path = tmp_path / "config.json"
    path.mkdir() if damage == "folder" else path.write_bytes(damage)
    for attempt in (lambda: read_config(tmp_path), lambda: claim(tmp_path, validate(tiny_config()))):
        with pytest.raises(ConfigError, match="config.json: ") as refusal:
            attempt()
        assert "\n" not in str(refusal.value)


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0", "truncation"')
    with pytest.raises(ConfigError, match="tokenizer: no tokenizer that can be loaded") as refusal:
        read_tokenizer(tmp_path)
    assert "\n" not in str(refusal.value)


# ---------------------------------------------------------------- more steps, other rows


def test_a_run_is_extended_where_its_first_steps_stay_the_same(tmp_path, capsys):
    claim(tmp_path, validate(tiny_config(steps=4)))
    assert claim(tmp_path, validate(tiny_config(steps=6))) and "4 to 6" in capsys.readouterr().err
    assert read_config(tmp_path).steps == 6
    with pytest.raises(ConfigError, match="steps = 4: .*started with 6"):
        claim(tmp_path, validate(tiny_config(steps=4)))
    with pytest.raises(ConfigError, match="loss.kl: 0.0 there, 0.1 here"):
        claim(tmp_path, validate(tiny_config(steps=8, loss__kl=0.1)))
    assert read_config(tmp_path).steps == 6


def test_a_run_whose_schedule_ends_is_not_extended(tmp_path):
    claim(tmp_path, validate(tiny_config(optimizer__schedule="cosine")))
    with pytest.raises(ConfigError, match="steps = 6: .*started with 4.*optimizer.schedule = 'cosine'"):
        claim(tmp_path, validate(tiny_config(steps=6, optimizer__schedule="cosine")))
    assert read_config(tmp_path).steps == 4


def test_other_rows_are_refused_until_their_record_is_deleted(tmp_path):
    config, first, other = validate(tiny_config()), {"task": {"train": {"rows": 40}}}, {"task": {"train": {"rows": 17}}}
    claim(tmp_path, config, first)
    assert claim(tmp_path, config, first)
    with pytest.raises(ConfigError, match="task.train.rows: 40 there, 17 here"):
        claim(tmp_path, config, other)
    (tmp_path / "rows.json").unlink()
    assert claim(tmp_path, config, other) and claim(tmp_path, config, other)
    with pytest.raises(ConfigError, match="task.train.rows: 17 there, 40 here"):
        claim(tmp_path, config, first)


def test_a_released_workdir_takes_another_config(tmp_path):
    claim(tmp_path, validate(tiny_config()), {"task": {}})
    for name in ("warmup", "reflection_warmup", "external"):  # the corrected config may make others
        (tmp_path / name).mkdir()
        (tmp_path / name / "leaf").write_text("x")
    release(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not claim(tmp_path, validate(tiny_config("grpo")))


# ---------------------------------------------------------------- one process at a time


def test_a_second_process_is_refused_and_told_who_writes(tmp_path):
    held = f"run is being written by process {os.getpid()} on "
    with locked(tmp_path / "run"), pytest.raises(ConfigError, match=held), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):  # it is free again
        pass


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom amrsd_jax.runtime.workdir import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid} on "), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path):
        assert "No locks available" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/run/lock: cannot be written"), locked(tmp_path / "file" / "run"):
        pass
