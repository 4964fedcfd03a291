"""Configs are found by file or by name, from any folder, and describe their fields."""

import sys
from types import ModuleType

import pytest

from amrsd_jax import config_files
from amrsd_jax.config import base
from amrsd_jax.fields import every_field, of_run
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from configs import quickstart, smollm2

MINE = """
from configs import quickstart
def get_config():
    config = quickstart.get_config()
    config.seed = 7
    return config
"""


def test_a_name_is_a_config_of_the_package_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.read("quickstart") == quickstart.get_config()
    assert config_files.read("smollm2:grpo,lora") == smollm2.get_config("grpo,lora")


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "mine.py"):
        (tmp_path / name).write_text(MINE)
        assert config_files.read(name).seed == config_files.read(str(tmp_path / name)).seed == 7


def test_configs_of_the_package_do_not_import_those_of_the_user(tmp_path, monkeypatch):
    """A user's own package `configs` is left as it is, and the user's own file imports it."""
    users = ModuleType("configs")
    users.__spec__ = sys.__spec__
    users.quickstart = ModuleType("quickstart")
    users.quickstart.get_config = base
    monkeypatch.setitem(sys.modules, "configs", users)
    assert config_files.read("quickstart_grpo").rollout.prompt_length == 24
    assert sys.modules["configs"] is users
    (tmp_path / "mine.py").write_text(MINE)
    assert config_files.read(str(tmp_path / "mine.py")).rollout.prompt_length == 32


@pytest.mark.parametrize(
    "place, message",
    [
        ("quickstat", "did you mean 'quickstart'.* smollm2, "),
        ("nowhere/quickstart.py", "no such file.*did you mean 'quickstart'"),
        ("methods", "no such file"),
        ("quickstart:grpo", "config quickstart takes no word"),
        ("{tmp}/word.py", "word.py needs a word"),
        ("{tmp}/none.py", "none.py: get_config returned NoneType"),
        ("{tmp}/empty.py", "empty.py has no function get_config"),
    ],
)
def test_a_wrong_place_is_named(tmp_path, place, message):
    (tmp_path / "word.py").write_text("def get_config(word):\n    pass\n")
    (tmp_path / "none.py").write_text("def get_config():\n    pass\n")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=message) as refusal:
        config_files.read(place.format(tmp=tmp_path))
    assert "\n" not in str(refusal.value)


def test_every_field_is_listed_with_default_type_and_meaning():
    lines = list(every_field())
    assert "None" not in {line.strip() for line in lines}  # a field without a description
    for line in (
        "  --config.steps=30    int >= 1",
        "  --config.seed=0    int >= 0 < 4294967296",
        "  --config.loss.importance_cap=None    float > 0 or None",
        "  --config.optimizer.schedule='constant'    'constant' | 'linear' | 'cosine'",
        "  --config.monitor.entropy.threshold=0.1    float",
        "  --config.task.args.NAME=VALUE",
    ):
        assert line in lines
    assert (
        lines[lines.index("  --config.steps=30    int >= 1") + 1] == "      training steps: one batch of rollouts each"
    )


def test_fields_of_a_run_that_the_config_changes_have_a_star():
    config = base()
    config.steps, config.task.args.digits, config.credit.rule = 3, 4, "rlsd"
    lines = list(of_run(config, validate(config)))
    assert [line for line in lines if line.startswith("*")] == [
        "* steps = 3    (default 30)", "* task.args.digits = 4", "* credit.rule = 'rlsd'    (default 'amrsd')",
    ]  # fmt: skip
    assert "  credit.context = 'answer'" in lines and "  credit.args.decay_steps = 50" in lines  # filled in by the rule
