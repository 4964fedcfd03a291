"""The loop, end to end, on two-digit addition: what a run leaves, exact resume, exact savings, GRPO as a special case."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pyarrow.parquet as pq
import pytest

from amrsd_jax import credit
from amrsd_jax import train as loop
from amrsd_jax.checks import ConfigError
from amrsd_jax.runtime.metrics import Metrics, read_metrics
from amrsd_jax.train import train
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow

TIMES = ("seconds/", "throughput/")


@pytest.fixture
def workdir(finished, tmp_path):
    """A fresh workdir that already holds the warm-up."""
    for part in ("warmup", "tokenizer"):
        shutil.copytree(finished / part, tmp_path / "run" / part)
    return tmp_path / "run"


def leaves(workdir, step):
    """Every array of a checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.leaves(checkpointer.restore((workdir / "checkpoints" / str(step) / "state").absolute()))


def rows(workdir):
    """Metrics without the times."""
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMES)}
        for row in read_metrics(workdir / "metrics.jsonl")
    ]


def assert_same_run(a, b, step=4):
    assert rows(a) == rows(b)
    assert [[line["step"] for line in read_metrics(w / "timeline.jsonl")] for w in (a, b)] == [[1, 2, 3, 4]] * 2
    for x, y in zip(leaves(a, step), leaves(b, step), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------- what a run leaves behind


def test_a_run_leaves_its_record(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["steps"] == 4 and results["eval"]["initial"]["n"] == 16
    assert {"sampled", "greedy", "n"} <= results["eval"]["final"].keys()
    assert {"warmup", "sample", "reflect", "score", "credit", "learn", "evaluate"} <= results["seconds_by_phase"].keys()
    assert results["wall_seconds"] >= sum(results["seconds_by_phase"].values()) * 0.9
    kinds = [(row["kind"], row["step"]) for row in rows(finished)]
    assert kinds == [("eval", 0), *[("train", 1), ("train", 2), ("eval", 2), ("train", 3), ("train", 4), ("eval", 4)]]
    assert list((finished / "tensorboard").iterdir())
    assert json.loads((finished / "config.json").read_text())["task"]["name"] == "addition"
    assert not (finished / "data.json").exists()  # there are no rows to report on


def test_a_timeline_lays_out_every_step(finished):
    """Phases one after the other, with the metrics' seconds; slots that rows had while they were sampled."""
    metrics = [row for row in read_metrics(finished / "metrics.jsonl") if row["kind"] == "train"]
    lines = read_metrics(finished / "timeline.jsonl")
    for row, line in zip(metrics, lines, strict=True):
        assert row["step"] == line["step"] and line["slots"] == 32
        names, begins, ends = zip(*line["phases"], strict=True)
        assert names[:6] == ("sample", "credit", "reflect", "score", "credit", "learn")
        assert (
            all(end <= begin + 1e-4 for end, begin in zip(ends, begins[1:], strict=False))
            and ends[-1] == line["seconds"]
        )
        assert sum(ends) - sum(begins) == pytest.approx(row["seconds/step"], abs=1e-3)
        assert {name for name, *_ in line["beside"]} == {"verify", "reflect"}
        assert all(begins[0] <= begin <= end <= ends[0] + 1e-4 for _, begin, end in line["beside"])
        busy = np.array(line["busy"]["rollouts"])
        assert 1 < busy.max() <= 32 and busy[int(len(busy) * ends[0] / line["seconds"]) + 1 :].sum() == 0
    assert any(max(line["busy"].get("reflections", [0])) > 0 for line in lines)


def test_something_was_learned_from_reflections(finished):
    """The other tests compare runs; this one says that there is something to compare."""
    steps = [row for row in rows(finished) if row["kind"] == "train"]
    assert any(0 < row["rollout/accuracy"] < 1 and row["optimizer/grad_norm"] > 0 for row in steps)
    assert any(row["reflection/usable"] > 0 and row["credit/delta"] > 0 for row in steps)
    assert not any(row["optimizer/skipped"] for row in steps)
    assert all(row["policy/sampler_gap"] is None or row["policy/sampler_gap"] < 1e-4 for row in steps)


def test_rollouts_hold_what_every_token_was_credited_with(finished):
    table = pq.read_table(finished / "rollouts" / "step_00001.parquet").to_pylist()
    assert len(table) == 32
    marked = 0
    for row in table:
        assert len(row["tokens"]) == len(row["token_text"]) == len(row["token_advantage"])
        assert "".join(row["token_text"]).removesuffix("<|im_end|>") == row["response"]
        usable = row["reflection_status"] == "ok"
        assert (row["gap"] is not None) == usable == bool(row["reflection"])
        if usable:
            np.testing.assert_allclose(row["gap"], np.subtract(row["logp_teacher"], row["logp_student"]), atol=1e-6)
        if row["first_error_start"] >= 0:
            marked += 1
            assert row["reward"] == 0 and row["first_error_end"] > row["first_error_start"]
    assert marked


def test_credit_is_the_rule_applied_to_the_record(finished):
    """From the written rollouts alone: A (1 + Delta) by NumPy."""
    amplified = 0
    for row in pq.read_table(finished / "rollouts" / "step_00002.parquet").to_pylist():
        gain = np.clip(np.array(row["gap"] or np.zeros(len(row["tokens"]))), -5, 5)
        left = 1 - 1 / 50
        delta = (
            0.2 * left * np.maximum(gain - 0.2, 0) if row["advantage"] >= 0 else 0.1 * left * np.maximum(-gain - 0.2, 0)
        )
        np.testing.assert_allclose(row["token_advantage"], row["advantage"] * (1 + delta), rtol=1e-4, atol=1e-6)
        amplified += (delta > 0).sum()
    assert amplified


def test_the_same_command_again_finds_the_run_done(finished):
    before = (finished / "metrics.jsonl").read_text()
    results = train(tiny_config(), finished)
    assert results["steps"] == 4
    assert (finished / "metrics.jsonl").read_text() == before


def test_another_config_is_refused_with_the_differing_fields(finished):
    with pytest.raises(ConfigError, match=r"loss.clip_high: 0.2 there, 0.3 here"):
        train(tiny_config(loss__clip_high=0.3), finished)


# ---------------------------------------------------------------- resume


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


@pytest.mark.parametrize("point", ["first step", "before a save", "after a save", "last step"])
def test_a_killed_run_continues_to_the_same_end(finished, workdir, monkeypatch, point):
    """The process ends at some line; the same command again reaches the same bits and the same metrics."""

    def kill_when(owner, name, due):
        original = getattr(owner, name)

        def wrapper(*args, **kwargs):
            if point.startswith("before") and due(*args):
                raise Killed
            result = original(*args, **kwargs)
            if due(*args):
                raise Killed
            return result

        monkeypatch.setattr(owner, name, wrapper)

    if "save" in point:
        # In one process the writer of the "killed" run would live on, so it is waited for; SIGKILL is tested below.
        kill_when(loop.Checkpoints, "save", lambda self, step, *_: self._manager.wait_until_finished() or step == 2)
    else:
        step = {"first step": 1, "last step": 4}[point]
        kill_when(Metrics, "write", lambda self, kind, at, values: kind == "train" and at == step)
    with pytest.raises(Killed):
        train(tiny_config(), workdir)
    monkeypatch.undo()
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a line that was being written
    train(tiny_config(), workdir)
    assert_same_run(finished, workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_continues(finished, workdir, monkeypatch, number):
    original = Metrics.write

    def write(self, kind, step, values):
        original(self, kind, step, values)
        if (kind, step) == ("train", 3):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Metrics, "write", write)
    assert train(tiny_config(), workdir)["steps"] == 3
    monkeypatch.undo()
    assert train(tiny_config(), workdir)["steps"] == 4
    assert_same_run(finished, workdir)


def test_kill_minus_nine(finished, workdir):
    """The real thing: SIGKILL while a checkpoint is written in the background, and at two other moments."""
    program = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import tests.conftest
from pathlib import Path
from amrsd_jax import train as loop
from amrsd_jax.checks import ConfigError
from amrsd_jax.runtime.metrics import Metrics
from tests.tiny import tiny_config
point, delay = sys.argv[1], float(sys.argv[2])
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def then(owner, name, due):
    original = getattr(owner, name)
    def wrapper(*args, **kwargs):
        result = original(*args, **kwargs)
        if due(*args):
            threading.Timer(delay, die).start() if delay else die()
        return result
    setattr(owner, name, wrapper)
if point == "save": then(loop.Checkpoints, "save", lambda self, step, *_: step == 2)
if point == "write": then(Metrics, "write", lambda self, kind, step, _: kind == "train" and step == 3)
loop.train(tiny_config(), Path({str(workdir)!r}))
"""
    for point, delay in (("save", "0"), ("save", "0.01"), ("write", "0.005")):
        died = subprocess.run([sys.executable, "-c", program, point, delay], capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    done = subprocess.run([sys.executable, "-c", program, "none", "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_run(finished, workdir)


# ---------------------------------------------------------------- exactness


def every_step(workdir, config):
    config.checkpoint.update(every=1, keep=9)
    train(config, workdir)
    return [leaves(workdir, step) for step in range(1, 5)]


def test_amrsd_without_strength_is_grpo_bit_for_bit_at_every_step(finished, tmp_path):
    """With the savings off, so that reflection and teacher really run beside it."""
    runs = []
    for name, config in (
        ("grpo", tiny_config("grpo")),
        ("amrsd", tiny_config(credit__args={"lam": 0.0, "gamma": 0.0}, credit__exact_savings=False)),
    ):
        for part in ("warmup", "tokenizer"):
            shutil.copytree(finished / part, tmp_path / name / part)
        runs.append(every_step(tmp_path / name, config))
    assert rows(tmp_path / "amrsd")[1]["reflection/needed"] == 1.0
    for ours, plain in zip(*runs, strict=True):
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_savings_change_nothing(finished, workdir):
    train(tiny_config(credit__exact_savings=False), workdir)
    for a, b in zip(leaves(finished, 4), leaves(workdir, 4), strict=True):
        np.testing.assert_array_equal(a, b)
    needed = [[row["reflection/needed"] for row in rows(w) if row["kind"] == "train"] for w in (workdir, finished)]
    assert needed[0] == [1.0] * 4 and min(needed[1]) < 1.0


def test_a_run_on_eight_devices_is_the_run_on_one(finished, workdir):
    train(tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), workdir)
    for one, eight in zip(rows(finished), rows(workdir), strict=True):
        assert one["kind"] == eight["kind"]
        if one["kind"] == "train":
            assert one["rollout/accuracy"] == eight["rollout/accuracy"]
            assert eight["loss/total"] == pytest.approx(one["loss/total"], abs=1e-4)
            assert eight["optimizer/grad_norm"] == pytest.approx(one["optimizer/grad_norm"], rel=1e-2)


# ---------------------------------------------------------------- options


def test_every_option_of_the_loss_at_once(workdir):
    config = tiny_config(
        steps=2,
        loss__reduction="constant",
        loss__constant_length=32,
        loss__kl=0.05,
        loss__entropy=0.01,
        loss__old_logp="trainer",
        loss__importance_cap=2.0,
        loss__mask_truncated=True,
        reward__overlong_buffer=16,
        rollout__rounds=3,
        rollout__temperature=0.9,
        rollout__top_p=0.99,
        learning__micro_batches=2,
        optimizer__schedule="cosine",
    )
    train(config, workdir)
    first, second = (row for row in rows(workdir) if row["kind"] == "train")
    for row in (first, second):
        assert np.isfinite(row["loss/total"]) and row["loss/kl_to_reference"] >= 0
    assert first["loss/kl_to_reference"] < second["loss/kl_to_reference"] + 1e-3  # starts at the reference
    assert second["optimizer/learning_rate"] < first["optimizer/learning_rate"] == pytest.approx(1e-4, rel=0.2)


def test_dynamic_sampling_replaces_flat_groups(finished, workdir):
    train(tiny_config(steps=1, rollout__rounds=4), workdir)
    plain, dynamic = (next(row for row in rows(w) if row["kind"] == "train") for w in (finished, workdir))
    assert plain["rollout/flat_rows"] > 0
    assert dynamic["rollout/flat_rows"] == 0
    assert dynamic["data/prompts_drawn"] > plain["data/prompts_drawn"] == 4


def test_permuted_rewards_are_the_same_rewards_elsewhere(finished, workdir):
    train(tiny_config(steps=1, reward__permute=True), workdir)
    tables = [pq.read_table(w / "rollouts" / "step_00001.parquet").to_pylist() for w in (finished, workdir)]
    assert [row["response"] for row in tables[0]] == [row["response"] for row in tables[1]]
    rewards = [[row["reward"] for row in table] for table in tables]
    assert sorted(rewards[0]) == sorted(rewards[1]) and rewards[0] != rewards[1]


def test_gradients_that_are_not_finite_stop_the_run_with_its_parameters_whole(workdir, monkeypatch):
    original = loop.assign

    def poisoned(*args, **more):
        credit = original(*args, **more)
        return dataclasses.replace(credit, token_advantage=credit.token_advantage * np.float32("nan"))

    monkeypatch.setattr(loop, "assign", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 2: 2 updates in a row.*optimizer.max_skipped = 2"):
        train(tiny_config(optimizer__max_skipped=2), workdir)
    assert [row["optimizer/skipped"] for row in rows(workdir) if row["kind"] == "train"] == [1.0, 1.0]
    assert all(np.isfinite(a).all() for a in leaves(workdir, 2))


# ---------------------------------------------------------------- real rows


def a_process(config, workdir, *fields):
    """Trains by the command in a process of its own, on one device; returns its notes and its peak memory in KiB."""
    command = [
        sys.executable, "-c",
        "import resource, sys\nfrom absl import app\nfrom amrsd_jax import main\n"
        "try: app.run(main.main, flags_parser=main.parse)\n"
        "finally: print('peak KiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
        f"--config=configs/{config}", f"--workdir={workdir}", *(f"--config.{field}" for field in fields),
    ]  # fmt: skip
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr, int(done.stdout.split("peak KiB")[1])


def test_real_gsm8k_rows_through_a_real_tokenizer(shared_data, tmp_path):
    """By config alone, the full 151,936-row vocabulary, in under 4 GiB."""
    folder, tokenizer = shared_data / "math" / "gsm8k", shared_data / "tokenizer" / "qwen3"
    notes, peak = a_process("gsm8k_tiny.py", tmp_path, f"task.args.folder={folder}", f"tokenizer={tokenizer}")
    assert peak < 4 * 2**20
    trained = [row for row in rows(tmp_path) if row["kind"] == "train"]
    assert len(trained) == 2
    for row in trained:
        assert row["reflection/needed"] == 1.0
        assert np.isfinite(row["loss/total"])
    table = pq.read_table(tmp_path / "rollouts" / "step_00001.parquet").to_pylist()
    assert all(row["problem_id"].startswith("train-") for row in table)
    assert "data train: 7473 rows" in notes
    found = json.loads((tmp_path / "data.json").read_text())
    assert found["splits"]["test"]["selftest"] == {"rows": 512, "faults": []}


def test_a_step_on_real_chemistry_rows(shared_data, tmp_path):
    """The chemistry experiment's config with 20 M random parameters and the full vocabulary, and a budget for a CPU."""
    notes, peak = a_process(
        "science.py:chemistry", tmp_path, "steps=1", f"task.args.folder={shared_data / 'sciknoweval' / 'chemistry'}",
        "model=tiny", "architecture.vocab_size=151936", f"tokenizer={shared_data / 'tokenizer' / 'qwen3'}", "mesh.fsdp=1",
        "rollout.prompts=4", "rollout.group=4", "rollout.slots=16", "rollout.admit=4", "rollout.prompt_length=768",
        "rollout.response_length=64", "reflection.prompt_length=1024", "reflection.slots=16", "reflection.admit=4",
        "reflection.tokens=48", "reflection.context_length=1024", "learning.micro_batches=4", "scoring.chunk=512",
        "evaluation.problems=8", "evaluation.samples=1", "credit.exact_savings=False",  # or nothing would be reflected on
        "credit.context=self_reflection,answer",  # for what a random model writes has no tags
    )  # fmt: skip
    assert "amrsd on choice, 20,0" in notes and "data train: 1890 rows" in notes
    assert peak < 4 * 2**20
    row = rows(tmp_path)[1]
    assert row["kind"] == "train" and np.isfinite(row["loss/total"])
    assert row["reflection/needed"] == row["reflection/usable"] == 1.0
    table = pq.read_table(tmp_path / "rollouts" / "step_00001.parquet").to_pylist()
    assert len(table) == 16 and any(any(line["gap"]) for line in table)  # the teacher has read them
    assert all(row["problem_id"].startswith("train-") for row in table)


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("rule", sorted(set(credit.RULES) - {"amrsd", "grpo"}))
def test_every_rule_trains(workdir, rule):
    """One line of the config changes the method; the record says what its teacher saw."""
    train(tiny_config(rule, steps=2, evaluation__every=0), workdir)
    trained = [row for row in rows(workdir) if row["kind"] == "train"]
    assert all(np.isfinite(row["loss/total"]) and not row["optimizer/skipped"] for row in trained)
    frozen = json.loads((workdir / "config.json").read_text())
    assert (
        frozen["credit"]["context"] == credit.get(rule).context
        and frozen["credit"]["args"] == credit.get(rule).defaults
    )
    kinds = {row["reflection_kind"] for row in pq.read_table(workdir / "rollouts" / "step_00001.parquet").to_pylist()}
    wanted = set(credit.get(rule).context.split(",")) | {"hint", "critique"}
    assert kinds - {""} <= wanted
    if credit.get(rule).distil:
        assert trained[0]["loss/divergence"] != 0  # below 0 where entries are clipped


@pytest.mark.parametrize("context", ["answer", "peer_solution", "shuffled_reflection", "oracle_reflection"])
def test_amrsd_takes_any_context(workdir, context):
    train(tiny_config(steps=1, credit__context=context, evaluation__every=0), workdir)
    assert next(row for row in rows(workdir) if row["kind"] == "train")["reflection/usable"] > 0


@pytest.mark.parametrize(
    "rule, kind",
    [
        ("amrsd", "snapshot"),
        ("amrsd", "ema"),
        ("sdpo", "ema"),
        ("amrsd", "initial"),
        ("amrsd", "trust_region"),
        ("amrsd", "external"),
        ("antisd", "snapshot"),  # a rule with a memory
    ],
)
def test_a_teacher_of_its_own_survives_a_kill(finished, tmp_path, monkeypatch, rule, kind):
    config = tiny_config(rule, teacher__kind=kind, teacher__every=3, teacher__rate=0.3)
    config.external.workdir = str(finished) if kind == "external" else ""
    for name in ("whole", "killed"):
        for part in ("warmup", "tokenizer"):
            shutil.copytree(finished / part, tmp_path / name / part)
    train(config, tmp_path / "whole")
    original = Metrics.write

    def write(self, what, step, values):
        original(self, what, step, values)
        if (what, step) == ("train", 3):
            raise Killed

    monkeypatch.setattr(Metrics, "write", write)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed")
    monkeypatch.undo()
    train(config, tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert len(leaves(tmp_path / "whole", 4)) > len(leaves(finished, 4))


def test_a_critic_of_another_run_writes_the_contexts(finished, workdir):
    """And the run goes on from its own copy of the critic."""
    config = tiny_config("feedback_alignment", external__workdir=str(finished), evaluation__every=0)
    train(config, workdir)
    table = pq.read_table(workdir / "rollouts" / "step_00001.parquet").to_pylist()
    assert {row["reflection_kind"] for row in table} == {"critic_feedback"}
    ours, theirs = (
        ocp.StandardCheckpointer().restore(folder.absolute())
        for folder in (workdir / "external", finished / "checkpoints" / "4" / "state")
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs["params"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_external_run_that_does_not_fit_is_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="holds no run: it has no config.json"):
        train(tiny_config(teacher__kind="external", external__workdir=str(tmp_path)), tmp_path / "a")
    other = tiny_config(teacher__kind="external", external__workdir=str(finished))
    other.task.name, other.task.args = "strings", {}
    with pytest.raises(ConfigError, match="its tokenizer is not this run's"):
        train(other, tmp_path / "b")
