"""docs/own_data.md, followed: its files are written, and its commands run in an empty folder, with a tiny model for its own."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from amrsd_jax.files import read_json_lines
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.tasks import registry
from amrsd_jax.validate import validate
from tests.tiny import set_fields

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
COMMANDS = re.findall(r"^ {4}python (.*)$", PAGE, flags=re.MULTILINE)
TINY = dict(width=16, layers=1, heads=1, kv_heads=1, head_dim=16, ffn=16, vocab_size=128)
FLAGS = [
    "--config.model=tiny",
    "--config.tokenizer=tokenizer",
    "--config.mesh.data=1",
    "--config.rollout.prompt_length=128",
]
FLAGS += [f"--config.architecture.{name}={value}" for name, value in TINY.items()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the page's files and a small tokenizer."""
    for name, text in re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL):
        (tmp_path / name).write_text(text)
    embedded_tokenizer(["number"]).save_pretrained(tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_rows_are_judged_by_the_verifiers_of_their_sets(folder):
    runpy.run_path("make_rows.py")
    config = runpy.run_path("two_sets.py")["get_config"]()
    section = validate(set_fields(config, model="tiny", tokenizer="tokenizer")).task
    task = registry.make(section.name, section.args, seed=0)
    problems = [task.problem("train", i) for i in range(8)]
    assert [problem.data_set for problem in problems].count("sentences") == 2
    for problem in problems:
        if problem.data_set == "sums":
            near, far = (str(int(problem.answer) + off) for off in (3, 4))
            assert task.verify(problem, f"It is {near}.").correct and not task.verify(problem, f"It is {far}.").correct
        else:
            sentence = f"I like {problem.row['thing']}"
            rewards = [task.verify(problem, text).reward for text in (sentence, sentence + " a" * 9, "I like it")]
            assert rewards == [1.0, 0.5, 0.0]


@pytest.mark.slow
def test_the_commands_run_in_any_folder(folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for command in COMMANDS:
        words = [sys.executable, *shlex.split(command), *(FLAGS if "--config=" in command else [])]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        if command.startswith("-c "):
            assert "reward=1.0" in done.stdout
    last = read_json_lines(folder / "run" / "metrics.jsonl")[-1]
    assert last["step"] == 2 and {"eval/sampled", "eval/sums/sampled", "eval/sentences/sampled"} <= last.keys()
    assert (folder / "run" / "report.html").exists()
    assert "| test/sentences |" in done.stdout


def test_a_module_in_the_working_directory_is_found_by_an_installed_command_too(folder):
    """`python -P` leaves the working directory out of the import path, as a console script does."""
    program = "from amrsd_jax.tasks.verifiers import load; from amrsd_jax.problems import Problem\n"
    program += "print(load('verifiers:near').verify(Problem('1', '', '100', row={'tolerance': 3}), '90 + 10 = 98'))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "reward=1.0" in done.stdout, done.stderr
