"""A workdir belongs to one config, which it holds in full, and to one edition of the file format."""

import json

import pytest

from amrsd_jax.config import ConfigError
from amrsd_jax.runtime.workdir import claim, read_config, write_environment
from amrsd_jax.validate import validate
from tests.tiny import tiny_config


def test_a_workdir_is_claimed_once_and_resumed_by_the_same_config(tmp_path):
    workdir = tmp_path / "runs" / "a"
    assert not claim(workdir, validate(tiny_config()))
    assert [path.name for path in workdir.iterdir()] == ["config.json"]
    assert claim(workdir, validate(tiny_config()))


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


@pytest.mark.parametrize("written", [{"steps": 3, "loss": {"old_logp": "sampler"}}, {"format": 3, "steps": 3}, [1]])
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
