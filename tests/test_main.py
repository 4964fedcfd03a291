"""A wrong flag is one line that names the field and its value, before anything is computed or written."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from amrsd_jax import main

ROOT = Path(__file__).parents[1]
CONFIG = "configs/quickstart.py"


@pytest.fixture
def parse(monkeypatch):
    """`main.parse` as if the program had been started with these flags; config flags look at sys.argv themselves."""
    monkeypatch.chdir(ROOT)

    def parse(*arguments):
        monkeypatch.setattr(sys, "argv", ["main", *arguments])
        return main.parse(sys.argv)

    with flagsaver.flagsaver():
        yield parse
    flags.FLAGS.unparse_flags()


def test_overrides_reach_the_config(parse):
    fields = ("steps=3", "credit.rule=grpo", "task.args.digits=4", "chat_template.enable_thinking=False")
    rest = parse(f"--config={CONFIG}", "--workdir=w", *(f"--config.{field}" for field in fields))
    config = flags.FLAGS.config
    assert (config.steps, config.task.args.digits, config.credit.rule) == (3, 4, "grpo")
    assert config.chat_template.enable_thinking is False
    assert rest == ["main"] and config.is_locked


@pytest.mark.parametrize(
    "flag, named",
    [
        ("stpes=3", "stpes = 3: no such field; did you mean 'steps'?"),
        ("stpes=abc", "stpes = 'abc': no such field; did you mean 'steps'?"),
        ("rollout.gruop=3", "rollout.gruop = 3: no such field; did you mean 'group'?"),
        ("rolout.group=3", "no such section: 'rolout' Did you mean \"rollout\""),
        ("task.args.digit=3", "task.args.digit = 3: "),
        ("steps=abc", "--config.steps=abc: "),
        ("steps=2.5", "--config.steps=2.5: "),
        ("task.args.digits=x", "task.args.digits = 'x': "),
        ("credit.normalize=maybe", "--config.credit.normalize=maybe: "),
        ("credit.args.decay_steps=-1", "credit.args.decay_steps = -1: "),
        ("credit.rule=grop", "credit.rule = 'grop': did you mean 'grpo'?"),
        ("steps=0", "steps = 0: "),
    ],
)
def test_a_wrong_field_is_one_line(parse, flag, named):
    with pytest.raises(SystemExit) as stop:
        parse(f"--config={CONFIG}", "--workdir=w", f"--config.{flag}")
    assert str(stop.value.code).startswith("config error: ") and named in stop.value.code
    assert "\n" not in stop.value.code


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workdir=w"], "--config must have a value"),
        ([f"--config={CONFIG}"], "--workdir must have a value"),
        (
            ["--config=configs/quickstat.py", "--workdir=w"],
            "no such file, and no config of that name; did you mean 'quickstart'?",
        ),
        (["--config=quickstart:grpo", "--workdir=w"], "config quickstart takes no word behind a colon"),
        (["--config=baselines", "--workdir=w"], "baseline '': expected one of antisd, "),
        ([f"--config={CONFIG}", "--workdir="], "flag --workdir=: expected the name of a folder"),
        ([f"--config={CONFIG}", "--workdir=gs://bucket/run"], "expected a folder of this machine"),
        ([f"--config={CONFIG}", "--workdri=w"], "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
    ],
)
def test_wrong_flags_are_one_line(parse, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert message in stop.value.code and "\n" not in stop.value.code


@pytest.mark.parametrize(
    "line, named",
    [
        ("config.rolout.group = 3", "rolout"),
        ("config.steps = 1 / 0", "ZeroDivisionError: division by zero"),
        ("config.steps = undefined", "NameError: name 'undefined' is not defined"),
        ("raise KeyError('key')", "key"),
    ],
)
def test_a_config_file_that_raises_is_one_line(parse, tmp_path, line, named):
    file = tmp_path / "wrong.py"
    file.write_text(
        f"from amrsd_jax import config as c\ndef get_config():\n    config = c.base()\n    {line}\n    return config\n"
    )
    with pytest.raises(SystemExit) as stop:
        parse(f"--config={file}", "--workdir=w")
    assert stop.value.code.startswith("config error: ") and named in stop.value.code and "\n" not in stop.value.code


@pytest.mark.slow
def test_the_program_stops_with_one_line_and_leaves_nothing(tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "amrsd_jax.main", f"--config={CONFIG}", f"--workdir={workdir}", "--config.stpes=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines()[-1].startswith("config error: stpes = 3")
    assert "Traceback" not in done.stderr and not workdir.exists()
