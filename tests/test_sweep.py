"""Sweeps: the grid and its names, what is refused before any compute, and runs that are skipped, continued, shared or fail."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from amrsd_jax.config import Config
from amrsd_jax.flags import config_arguments
from amrsd_jax.runtime.workdir import config_json
from amrsd_jax.sections import ConfigError
from amrsd_jax.sweep import runs as sweep_runs
from amrsd_jax.sweep.grid import axes, expand
from amrsd_jax.sweep.runs import state, summarise, train_all
from amrsd_jax.sweep.warmups import PARTS, reuse_warmups
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[1]
CONFIG = f"--config={ROOT}/configs/quickstart.py"
RULES = {"credit.rule": ["grpo", "amrsd"], "seed": ["0", "1"]}


# ---------------------------------------------------------------- the grid


def test_settings_become_axes():
    assert axes(["credit.rule=grpo,amrsd", "optimizer.learning_rate=1e-4"], ["0", "1"]) == {
        "credit.rule": ["grpo", "amrsd"],
        "optimizer.learning_rate": ["1e-4"],
        "seed": ["0", "1"],
    }
    assert axes(
        ["credit.context='answer,verdict',question", "rollout.stop=('a','b'),()", "distill={'k': (1, 2)}"], []
    ) == {
        "credit.context": ["answer,verdict", "question"],
        "rollout.stop": ["('a','b')", "()"],
        "distill": ["{'k': (1, 2)}"],
    }


@pytest.mark.parametrize(
    "settings, seeds, message",
    [
        ([], [], "nothing to combine"),
        (["steps"], [], "--set steps: expected FIELD=VALUE"),
        (["steps="], [], "--set steps=: expected FIELD=VALUE"),
        (["steps=1,,2"], [], "--set steps=1,,2: expected FIELD=VALUE"),
        (["steps=1,1"], [], "steps: the value '1' is there twice"),
        (["steps=1", "steps=2"], [], "steps: given twice"),
        (["seed=1"], ["0"], "seed: given twice"),
    ],
)
def test_wrong_settings_are_named(settings, seeds, message):
    with pytest.raises(ConfigError, match=message):
        axes(settings, seeds)


def test_each_combination_is_a_run_with_a_readable_name(tmp_path):
    runs = expand(tmp_path, [CONFIG, "--config.steps=7"], RULES | {"optimizer.learning_rate": ["1e-4"]})
    assert [run.name for run in runs] == [
        f"credit.rule={rule},optimizer.learning_rate=1e-4,seed={seed}" for seed in (0, 1) for rule in ("grpo", "amrsd")
    ]
    assert [(run.config.credit.rule, run.config.seed) for run in runs] == [
        ("grpo", 0), ("amrsd", 0), ("grpo", 1), ("amrsd", 1),
    ]  # fmt: skip
    assert {(run.config.steps, run.config.optimizer.learning_rate) for run in runs} == {(7, 1e-4)}
    assert runs[0].arguments[:2] == [CONFIG, "--config.steps=7"] and runs[0].workdir.parent == tmp_path
    assert not list(tmp_path.iterdir())
    (run,) = expand(tmp_path, [CONFIG], {"chat_template.date_string": ["1/May 26"]})
    assert run.name == "chat_template.date_string=1_May_26" and run.arguments[1].endswith("=1/May 26")


@pytest.mark.parametrize(
    "arguments, values, messages",
    [
        (
            [CONFIG],
            {"credit.rule": ["grpo", "grop"]},
            ["credit.rule = 'grop': did you mean 'grpo'", "(in credit.rule=grop)"],
        ),
        (
            [CONFIG],
            {"credit.args.tau": ["0.1", "-1"], "seed": ["0", "1", "-3"]},
            [
                "tau = -1",
                "(in credit.args.tau=-1,seed=0 and 1 more)",
                "seed = -3",
                "(in credit.args.tau=0.1,seed=-3 and 1 more)",
            ],
        ),
        ([CONFIG], {"stpes": ["1", "2"]}, ["stpes = 1: no such field; did you mean 'steps'"]),
        ([CONFIG], {"rolout.group": ["1"]}, ["no such section: 'rolout'"]),
        ([CONFIG], {"chat_template.date_string": ["1 May", "1/May"]}, ["that of another combination"]),
    ],
)
def test_wrong_combinations_are_refused_together(tmp_path, arguments, values, messages):
    with pytest.raises(ConfigError) as error:
        expand(tmp_path, arguments, values)
    for message in messages:
        assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_reason_that_holds_for_all_is_given_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        expand(tmp_path, [CONFIG, "--config.steps=0"], RULES)
    assert str(error.value).count("steps = 0") == 1 and "(in" not in str(error.value)


def test_a_workdir_with_another_config_is_refused_before_the_first_run(tmp_path):
    constant = [CONFIG, "--config.optimizer.schedule=constant"]
    run = expand(tmp_path, constant, RULES)[2]
    run.workdir.mkdir()
    (run.workdir / "config.json").write_text(json.dumps(config_json(run.config)))
    assert len(expand(tmp_path, constant, RULES)) == 4
    assert len(expand(tmp_path, [*constant, "--config.steps=999"], RULES)) == 4  # which extends it
    with pytest.raises(ConfigError, match=r"loss\.kl: 0\.0 there, 0\.1 here"):
        expand(tmp_path, [*constant, "--config.loss.kl=0.1"], RULES)


# ---------------------------------------------------------------- training


def finish(run, accuracy=0.5, **results):
    """Leaves what a finished run leaves."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / "config.json").write_text(json.dumps(config_json(run.config)))
    evaluations = {"eval": {"initial": {"sampled": 0.25}, "final": {"sampled": accuracy}}}
    results = evaluations | {"steps": run.config.steps, "stopped": None, "wall_seconds": 90.0} | results
    (run.workdir / "results.json").write_text(json.dumps(results))
    (run.workdir / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": run.config.steps}) + "\n")


def test_finished_runs_are_skipped_others_trained_and_failures_named(tmp_path, monkeypatch, capfd):
    runs, trained = expand(tmp_path, [CONFIG], RULES), []
    finish(runs[0])
    finish(runs[1], eval={"initial": {"sampled": 0.2}, "final": None})  # interrupted in its last evaluation
    assert [state(run) for run in runs] == ["finished", "unfinished", "new", "new"]

    def train(run):
        trained.append(run.name)
        if run is runs[2]:
            return 1, 0
        finish(run, accuracy=0.5 + 0.25 * run.config.seed)
        return 0, 0

    monkeypatch.setattr(sweep_runs, "_train", train)
    (fault,) = train_all(runs)
    assert trained == [run.name for run in runs[1:]]
    assert fault.startswith(f"{runs[2].name} failed (exit status 1)")
    assert f"{runs[0].name}: finished before" in capfd.readouterr().out
    text = summarise(tmp_path, runs).splitlines()
    assert text[2:4] == [
        "| grpo | 0 | 25.0% | 50.0% | – | 36 | 1.5 |",
        "| amrsd | 0, 1 | 25.0% | 62.5% (50.0% to 75.0%) | +0.0 (1 seed) | 36 | 1.5 |",
    ]
    assert (tmp_path / "table.md").read_text().splitlines() == text[:4] and (tmp_path / "report.html").exists()


def test_the_table_has_the_runs_of_earlier_commands(tmp_path):
    for seeds in (["0", "1"], ["2", "3"]):
        runs = expand(tmp_path, [CONFIG], {"seed": seeds})
        for run in runs:
            finish(run, accuracy=0.5 + 0.1 * run.config.seed)
        row = summarise(tmp_path, runs).splitlines()[2]
    seeds = row.split(" | ")[0].removeprefix("| ").split(", ")
    assert "| 65.0% (50.0% to 80.0%) |" in row and sorted(seeds) == ["0", "1", "2", "3"]


def test_a_run_that_the_monitor_stopped_is_finished_and_one_to_extend_is_not(tmp_path):
    run = expand(tmp_path, [CONFIG], {"seed": ["0"]})[0]
    finish(run, steps=3)
    assert state(run) == "unfinished"
    finish(run, steps=3, stopped={"step": 3})
    assert state(run) == "finished"
    for damaged in ("{", "[]", "[" * 100_000):
        (run.workdir / "results.json").write_text(damaged)
        assert state(run) == "unfinished"


def test_a_signal_reaches_the_run_once_and_ends_the_sweep(tmp_path, monkeypatch):
    """The program in place of Python counts the signals that it gets in a second, like a run that ends after its step."""
    runs, log = expand(tmp_path, [CONFIG], RULES), tmp_path / "log"
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport signal, time\nlog = open({str(log)!r}, 'a', buffering=1)\n"
        "signal.signal(signal.SIGTERM, lambda *_: log.write('signal\\n'))\nlog.write('started\\n')\n"
        "time.sleep(2)\nlog.write('ended\\n')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))

    def interrupt():
        while not (log.exists() and "started" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before, thread = signal.getsignal(signal.SIGTERM), threading.Thread(target=interrupt)
    thread.start()
    (fault,) = train_all(runs)
    thread.join()
    assert fault == f"SIGTERM in {runs[0].name}; the same command continues from there"
    assert log.read_text().split() == ["started", "signal", "ended"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_runs_share_their_compiled_programs(tmp_path, monkeypatch, given):
    (run,) = expand(tmp_path, [CONFIG], {"seed": ["0"]})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $JAX_COMPILATION_CACHE_DIR > {tmp_path}/log\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    if given:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    else:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    train_all([run])
    assert (tmp_path / "log").read_text().strip() == (given or str(tmp_path / ".compilation_cache"))


# ---------------------------------------------------------------- warm-ups


def test_the_sections_that_warm_ups_do_not_read_exist():
    assert frozenset.union(*PARTS.values()) <= Config.model_fields.keys()


@pytest.mark.parametrize(
    "fields, reused",
    [
        (dict(credit__rule="grpo", loss__kl=0.1, steps=9, optimizer__learning_rate=1.0, reward__permute=True), 2),
        (dict(rollout__temperature=0.5), 1),  # attempts are sampled with it
        (dict(lora__rank=2), 1),  # the second warm-up then trains adapters
        (dict(seed=1), 0),
        (dict(task__args__digits=3), 0),
        (dict(warmup__documents=100), 0),
        (dict(scoring__chunk=128), 0),
        (dict(reflection__templates={"given_answer": "{answer}"}), 0),
    ],
)
def test_a_warm_up_is_reused_where_it_would_be_the_same(tmp_path, fields, reused):
    config = dict(reflection__warmup__attempts=8)
    made = tmp_path / "made"
    for part in ("warmup", "reflection_warmup"):
        (made / part).mkdir(parents=True)
        (made / part / "array").write_text(part)
    (made / "reflection_warmup.json").write_text("{}")
    (made / "config.json").write_text(json.dumps(config_json(validate(tiny_config(**config)))))
    (tmp_path / "damaged" / "warmup").mkdir(parents=True)
    (tmp_path / "damaged" / "config.json").write_text("[]")
    copied = reuse_warmups(tmp_path / "new", validate(tiny_config(**config | fields)))
    assert copied == ["warmup of made", "reflection_warmup of made"][:reused]
    files = sorted(str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert (
        files == [[], ["warmup/array"], ["reflection_warmup.json", "reflection_warmup/array", "warmup/array"]][reused]
    )
    assert reuse_warmups(tmp_path / "new", validate(tiny_config(**config | fields))) == []  # it has them


# ---------------------------------------------------------------- the command


TINY = """
from tests.tiny import tiny_config
def get_config():
    return tiny_config(steps=1, warmup__documents=200, evaluation__problems=8, rollout__prompts=2)
"""


def sweep(*arguments, **environment):
    command = [sys.executable, "-m", "amrsd_jax.sweep", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


def test_the_flags_of_the_config_are_passed_on():
    own = [CONFIG, "--config.steps=3", "-config.seed", "3", "--noconfig.learning.skip", "--config", "x.py"]
    assert config_arguments(["sweep", "--out=o", *own[:3], "3", "--set", "configs=1", *own[4:], "--configs=1"]) == own


def test_a_dry_run_lists_the_runs_and_writes_nothing(tmp_path):
    done = sweep(CONFIG, f"--out={tmp_path}/out", "--seeds=0,1", "--set", "credit.rule=grpo,amrsd", "--dry_run")
    names = [f"credit.rule={rule},seed={seed}" for seed in (0, 1) for rule in ("grpo", "amrsd")]
    assert done.returncode == 0 and [line.split() for line in done.stdout.splitlines()] == [
        ["new", f"{tmp_path}/out/{name}"] for name in names
    ]
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_one_line_each(tmp_path):
    done = sweep(CONFIG, f"--out={tmp_path}/out", "--seeds=0", "--set=credit.rule=grop", "--config.stpes=3")
    assert done.returncode == 1 and "stpes = 3" in done.stderr and "Traceback" not in done.stderr
    for arguments, words in (
        ([CONFIG, "--seeds=0"], "--out must have a value"),
        ([f"--out={tmp_path}/out", "--seeds=0"], "--config must have a value"),
        ([CONFIG, f"--out={tmp_path}/out"], "nothing to combine"),
        ([CONFIG, f"--out={tmp_path}/out", "--sedes=0"], "'sedes'. Did you mean: seeds"),
    ):
        done = sweep(*arguments)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_rules_by_two_seeds_from_one_command(tmp_path):
    """The two rules of a seed share its warm-up; a second call trains nothing and gives the same table."""
    (tmp_path / "tiny.py").write_text(TINY)
    out = tmp_path / "out"
    arguments = [f"--config={tmp_path}/tiny.py", f"--out={out}", "--seeds=0,1", "--set=credit.rule=grpo,amrsd"]
    done = sweep(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warm-up on 200 documents") == 2
    assert "credit.rule=amrsd,seed=1: new, with warmup of credit.rule=grpo,seed=1" in done.stdout
    initial = {
        rule: json.loads((out / f"credit.rule={rule},seed=1" / "results.json").read_text())["eval"]["initial"]
        for rule in ("grpo", "amrsd")
    }
    assert initial["grpo"] == initial["amrsd"]
    lines = (out / "table.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:]] == [["| grpo", "0, 1"], ["| amrsd", "0, 1"]]
    page, table = (out / "report.html").read_text(), (out / "table.md").read_text()
    assert "4 runs" in page and "credit.rule=amrsd" in page
    done = sweep(*arguments, JAX_PLATFORMS="none")  # the sweep itself uses no device: its runs need them
    assert done.returncode == 0 and done.stdout.count("finished before") == 4 and "step 1/1" not in done.stderr
    assert (out / "table.md").read_text() == table
