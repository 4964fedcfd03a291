"""The loop on two-digit addition: what a run leaves, exact resume, lossless skipping, GRPO as a special case, every rule."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from amrsd_jax import credit, report, start
from amrsd_jax import experiment as experiments
from amrsd_jax import train as loop
from amrsd_jax.evaluate import Evaluator
from amrsd_jax.experiment import make_experiment
from amrsd_jax.files import read_json_lines
from amrsd_jax.interrupt import Interrupted
from amrsd_jax.learning.step import make_train_step
from amrsd_jax.preflight import check_prompts
from amrsd_jax.runtime.checkpoints import Checkpoints, find_step
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import claim, config_json, locked, read_config
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import start_or_resume
from amrsd_jax.train import train, training_step
from amrsd_jax.validate import validate
from tests import runs
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture
def workdir(finished, tmp_path):
    """A new workdir that holds the warm-up."""
    return runs.fresh(finished, tmp_path / "run")


# ---------------------------------------------------------------- what a run leaves behind


def test_a_run_leaves_its_record(finished):
    rows = runs.metrics(finished)
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("eval", 0), ("train", 1), ("train", 2), ("eval", 2), ("train", 3), ("train", 4), ("eval", 4),
    ]  # fmt: skip
    results = json.loads((finished / "results.json").read_text())
    assert results["steps"] == 4 and results["stopped"] is None and results["rollbacks"] == []
    evaluations = [{f"eval/{name}": value for name, value in results["eval"][at].items() if name != "step"}
                   for at in ("initial", "final")]  # fmt: skip
    for row, evaluation in zip((rows[0], rows[-1]), evaluations, strict=True):
        assert {name: value for name, value in row.items() if name not in ("kind", "step")} == evaluation
    assert results["wall_seconds"] >= sum(results["seconds_by_phase"].values()) * 0.9
    trained = runs.metrics(finished, "train")
    assert results["reflections_skipped"] == pytest.approx(np.mean([row["reflection/skipped"] for row in trained]))
    saved = json.loads((finished / "config.json").read_text())
    assert saved["format"] == 2 and saved["task"]["name"] == "addition" and saved["credit"]["args"]["kappa"] == 5.0
    assert json.loads((finished / "environment.json").read_text())["jax"] == jax.__version__
    assert {path.name for path in (finished / "evaluations").iterdir()} == {f"step_0000{step}" for step in (0, 2, 4)}
    assert list((finished / "tensorboard").iterdir())
    assert not (finished / "data.json").exists()  # the task has no rows to report on


def test_metrics_are_those_of_the_saved_rollouts(finished):
    total = 0
    for row in runs.metrics(finished, "train"):
        saved = runs.rollouts(finished, row["step"])
        rewards, lengths = (
            np.array([f(r) for r in saved]) for f in (lambda r: r["reward"], lambda r: len(r["tokens"]))
        )
        total += lengths.sum()
        assert (row["reward/mean"], row["reward/std"]) == pytest.approx((rewards.mean(), rewards.std()))
        assert row["reward/accuracy"] == (rewards == 1).mean()
        shape = row["response_length/min"], row["response_length/mean"], row["response_length/max"]
        assert shape == (lengths.min(), lengths.mean(), lengths.max())
        assert row["response_length/clip_ratio"] == np.mean([r["finish_reason"] == "length" for r in saved])
        assert row["groups/zero_advantage"] == np.mean(np.ptp(rewards.reshape(4, 8), axis=1) == 0)
        needed = [r for r in saved if r["reflection_status"] != "not_needed"]
        assert (row["reflection/needed"], row["reflection/skipped"]) == (len(needed) / 32, 1 - len(needed) / 32)
        assert row["reflection/usable"] == np.mean([r["reflection_status"] == "ok" for r in needed])
        assert row["tokens/total"] == total


def test_there_was_something_to_learn_from(finished):
    """Other tests compare runs; this one says that they are not empty."""
    trained = runs.metrics(finished, "train")
    assert any(0 < row["reward/accuracy"] < 1 and row["grad_norm"] > 0 for row in trained)
    assert any(row["reflection/usable"] and row["credit/delta"] > 0 for row in trained)
    assert any(row["reflection/skipped"] > 0 for row in trained)
    assert not any(row["updates/skipped"] for row in trained)
    assert all(row["policy/sampler_mismatch"] is None or row["policy/sampler_mismatch"] < 1e-4 for row in trained)


def test_a_timeline_has_every_phase_of_every_step(finished):
    """Phases follow each other and add up to the metrics' seconds; slots are busy while rows are sampled."""
    trained = [row for row in read_json_lines(finished / "metrics.jsonl") if row["kind"] == "train"]
    for row, line in zip(trained, read_json_lines(finished / "timeline.jsonl"), strict=True):
        assert row["step"] == line["step"] and line["slots"] == 32
        names, begins, ends = zip(*line["phases"], strict=True)
        assert names[:5] == ("sample", "reflect", "score", "credit", "update") and ends[-1] == line["seconds"]
        assert all(end <= begin + 1e-4 for end, begin in zip(ends, begins[1:], strict=False))
        assert sum(ends) - sum(begins) == pytest.approx(row["seconds/step"], abs=1e-3)
        assert all(begins[0] <= begin <= end <= ends[0] + 1e-4 for _, begin, end in line["beside"])
        busy = np.array(line["busy"]["rollouts"])
        assert 1 < busy.max() <= 32 and not busy[int(len(busy) * ends[0] / line["seconds"]) + 1 :].any()


def test_rollouts_say_what_every_token_was_credited_with(finished):
    """AMR-SD's credit from the saved columns alone, by NumPy: A (1 + Delta)."""
    amplified = marked = 0
    for row in runs.rollouts(finished, 2):
        assert len(row["tokens"]) == len(row["token_text"]) == len(row["token_advantage"])
        assert "".join(row["token_text"]).removesuffix("<|im_end|>") == row["response"]
        usable = row["reflection_status"] == "ok"
        assert (row["gap"] is not None) == usable == bool(row["reflection"])
        gain = np.zeros(len(row["tokens"]))
        if usable:
            gain = np.clip(np.subtract(row["teacher_logprobs"], row["student_logprobs"]), -5, 5)
            np.testing.assert_allclose(np.clip(row["gap"], -5, 5), gain, atol=1e-6)
        strength, surplus = (0.2, gain - 0.2) if row["advantage"] >= 0 else (0.1, -gain - 0.2)
        delta = strength * (1 - 1 / 50) * np.maximum(surplus, 0)
        np.testing.assert_allclose(row["token_advantage"], row["advantage"] * (1 + delta), rtol=1e-4, atol=1e-6)
        amplified += (delta > 0).sum()
        if row["first_error_start"] >= 0:
            marked += 1
            assert row["reward"] == 0 and row["first_error_end"] > row["first_error_start"]
    assert amplified and marked


def test_a_finished_run_is_not_trained_again(finished):
    before = (finished / "metrics.jsonl").read_text()
    assert train(tiny_config(**runs.EVERY_STEP), finished)["steps"] == 4
    assert (finished / "metrics.jsonl").read_text() == before
    with pytest.raises(ConfigError, match=r"loss.clip_high: 0.2 there, 0.3 here"):
        train(tiny_config(**runs.EVERY_STEP, loss__clip_high=0.3), finished)


# ---------------------------------------------------------------- resume


def signal_in_sampling(monkeypatch, step):
    """Sends SIGTERM to this process when a step begins to sample."""
    generate = loop.generate

    def signalled(experiment, params, critic, steps, *args):
        if steps == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(experiment, params, critic, steps, *args)

    monkeypatch.setattr(loop, "generate", signalled)


def test_a_run_killed_again_and_again_reaches_the_same_end(finished, workdir, monkeypatch):
    """Before its first checkpoint, after one, and by a signal while step 4 is sampled, which saves step 3; then to the end."""
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_metrics(patch, 1, runs.kill)
        train(tiny_config(), workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a line that was being written
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_save(patch, 2, runs.kill)
        train(tiny_config(), workdir)
    with monkeypatch.context() as patch:
        signal_in_sampling(patch, 4)
        assert train(tiny_config(), workdir)["steps"] == find_step(workdir) == 3
    assert len(runs.metrics(workdir, "train")) == 3
    assert train(tiny_config(), workdir)["steps"] == 4
    runs.assert_same_run(finished, workdir)


def test_kill_minus_nine(finished, workdir):
    """SIGKILL to a process while a checkpoint is written in the background."""
    program = f"""
import os, signal, threading
from pathlib import Path
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.train import train
from tests.tiny import tiny_config
save = Checkpoints.save
def save_and_die(self, step, *args, **named):
    save(self, step, *args, **named)
    if step == 2:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
Checkpoints.save = save_and_die
train(tiny_config(), Path({str(workdir)!r}))
"""
    died = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    train(tiny_config(), workdir)
    runs.assert_same_run(finished, workdir)


def test_a_damaged_checkpoint_is_stepped_over(finished, tmp_path, capsys):
    """To the same bits at the end, from the newest whole one."""
    run = shutil.copytree(finished, tmp_path / "run")
    for step, part in ((4, "state"), (3, "run")):
        shutil.rmtree(run / "checkpoints" / str(step) / part)
    train(tiny_config(**runs.EVERY_STEP), run)
    said = capsys.readouterr().err
    assert "checkpoint 4 is damaged: no state" in said and "checkpoint 3 is damaged: no run" in said
    assert "resuming at step 2" in said and "step 3/4" in said
    runs.assert_same_run(finished, run)


def test_a_checkpoint_with_another_state_is_refused(finished):
    """As an earlier version's is, whose optimiser kept something else."""
    experiment = make_experiment(validate(tiny_config()), finished)
    experiment = dataclasses.replace(experiment, optimizer=optax.sgd(0.1, momentum=0.9))
    with pytest.raises(ConfigError, match="checkpoints/4: cannot be read: .*expected another workdir if an earlier"):
        start_or_resume(experiment, finished, Checkpoints(finished / "checkpoints", keep=1), Clock())


def test_a_lost_evaluation_of_the_checkpoint_is_made_again(finished, tmp_path):
    """Its parameters are those of the checkpoint; lost rows of earlier steps are only told."""
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[1:-1]))
    results = train(tiny_config(**runs.EVERY_STEP), run)["eval"]
    assert results["initial"] is None and results["final"]["step"] == 4
    assert runs.metrics(run) == runs.metrics(finished)[1:]


def test_the_best_checkpoint_survives_a_resume(finished, workdir, monkeypatch):
    """It was kept by its score, which the checkpoint library does not write down."""
    scores = {2: 0.9, 4: 0.1}

    def scored(experiment, params, clock, folder, progress, due):
        return {"eval/sampled": scores.get(progress.step, 0.0), "eval/n": 1}

    monkeypatch.setattr(loop, "evaluate", scored)
    with monkeypatch.context() as patch:
        runs.after_metrics(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(tiny_config(checkpoint__keep=1), workdir)
    train(tiny_config(checkpoint__keep=1), workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]


def test_an_evaluation_after_its_checkpoint_counts_for_the_best(finished, workdir, monkeypatch):
    """A signal leaves the evaluation of step 2 to the resumed run, which is killed before it saves a checkpoint."""
    scores, signals = {2: 0.9, 4: 0.1}, [2]

    def scored(experiment, params, clock, folder, progress, due):
        if progress.step in signals:
            signals.remove(progress.step)
            os.kill(os.getpid(), signal.SIGTERM)
            raise Interrupted("SIGTERM")
        return {"eval/sampled": scores.get(progress.step, 0.0), "eval/n": 1}

    monkeypatch.setattr(loop, "evaluate", scored)
    config = tiny_config(checkpoint__keep=1)
    assert train(config, workdir)["steps"] == 2
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_metrics(patch, 3, runs.kill)
        train(config, workdir)
    train(config, workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]


def test_the_evaluation_before_training_counts_where_its_state_is_saved(finished, workdir, monkeypatch):
    """As for a run that was killed after its first checkpoint, which finds that evaluation at the resume."""
    scores = {0: 0.9, 2: 0.5, 4: 0.1}
    monkeypatch.setattr(loop, "evaluate", lambda *args: {"eval/sampled": scores[args[4].step], "eval/n": 1})
    config = tiny_config(checkpoint__keep=1, monitor__mass__action="rollback")
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_save(patch, 0, runs.kill)
        train(config, workdir)
    train(config, workdir)
    assert json.loads((workdir / "results.json").read_text())["eval"]["best"]["step"] == 0
    whole = runs.fresh(finished, workdir.with_name("whole"))
    train(config, whole)
    for folder in (workdir, whole):
        assert "0" in {path.name for path in (folder / "checkpoints").iterdir()}


def test_a_warm_up_that_cannot_be_read_now_is_not_removed(finished, workdir, monkeypatch):
    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("amrsd_jax.runtime.checkpoints._checksum", fails)
        with pytest.raises(OSError, match="warmup: cannot be read: .*Input/output error"):
            train(tiny_config(), workdir)
    assert (workdir / "warmup").is_dir()


def test_a_longer_run_is_the_extended_one(finished, workdir):
    train(tiny_config(steps=2, **runs.EVERY_STEP), workdir)
    assert train(tiny_config(**runs.EVERY_STEP), workdir)["steps"] == 4
    runs.assert_same_run(finished, workdir)


def test_a_signal_leaves_the_evaluation_to_the_resumed_run(finished, workdir, monkeypatch):
    """Before the first step, and in a resumed run, with one benchmark done, which is not repeated; a step before is not lost."""
    config = tiny_config()
    config.evaluation.benchmarks = {"pairs": {"task": {"name": "addition", "args": {"digits": 2}}, "problems": 5}}
    asked = []

    def counted(self, benchmark, *args, ask=Evaluator.__call__):
        asked.append(benchmark.name)
        return ask(self, benchmark, *args)

    def interrupt_after(name):
        def write(path, benchmark, answers, write=loop.write_answers):
            write(path, benchmark, answers)
            if benchmark.name == name:
                os.kill(os.getpid(), signal.SIGTERM)

        return write

    monkeypatch.setattr(Evaluator, "__call__", counted)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_answers", interrupt_after("test"))
        results = train(config, workdir)
    assert results["steps"] == 0 and results["eval"]["initial"] is None and results["eval"]["final"] is None
    assert runs.metrics(workdir) == [] and asked == ["test", "pairs"]  # the second one stopped between two segments
    with monkeypatch.context() as patch:
        runs.after_metrics(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        results = train(config, workdir)
    assert asked == ["test", "pairs", "pairs"] and results["steps"] == 2
    assert results["eval"]["final"] is None and results["eval"]["best"]["step"] == 0
    with monkeypatch.context() as patch:  # a resumed run, in the same evaluation
        patch.setattr(loop, "write_answers", interrupt_after("test"))
        assert train(config, workdir)["steps"] == 2 and asked[3:] == ["test", "pairs"]
    results = train(config, workdir)
    assert asked[5:] == ["pairs", "test", "pairs"]
    assert results["eval"]["final"]["step"] == 4 and len(results["eval"]["mean_of_last"]["steps"]) == 2
    without = [{name: row[name] for name in row if "/pairs/" not in name} for row in runs.metrics(workdir)]
    assert without == runs.metrics(finished)
    runs.assert_same_state(finished, workdir, 4)


def test_a_signal_in_the_warm_up_stops_there(tmp_path, monkeypatch):
    def track(batches, *_):
        for number, batch in enumerate(batches):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(start, "track", track)
    results = train(tiny_config(warmup__documents=400), tmp_path / "run")
    assert results["steps"] == 0 and results["eval"]["initial"] is None
    assert not (tmp_path / "run" / "warmup").exists() and report.write(tmp_path / "run").exists()


# ---------------------------------------------------------------- the start


def test_the_start_tells_the_parameters_of_adapters(tmp_path, capsys):
    """Of rank 4 on two layers: query from 64 to 64, value from 64 to 32."""
    experiment = make_experiment(validate(tiny_config(lora__rank=4, lora__targets="query,value")), tmp_path)
    loop.describe(experiment)
    size = experiment.policy.architecture.parameters()
    trained = 2 * 4 * ((64 + 64) + (64 + 32))
    assert f"{size:,} parameters, frozen; {trained:,} in adapters are trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(rollout__prompt_length=4), "rollout.prompt_length = 4"),
        (dict(reflection__context_length=1), "reflection.context_length = 1"),
        (dict(warmup__row_length=8), "warmup.row_length = 8"),
        (dict(teacher__kind="external", external__workdir="nowhere"), "nowhere holds no run"),
        (dict(tokenizer="/nonexistent"), "tokenizer = '/nonexistent'"),
    ],
)
def test_a_refused_start_leaves_a_workdir_for_the_corrected_command(tmp_path, fields, message):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(**fields), run)
    assert {path.name for path in run.glob("*")} <= {"lock", "compilation_cache", "checkpoints"}
    assert not claim(run, validate(tiny_config()))


def test_a_workdir_of_another_run_is_refused_before_its_tokenizer_is_used(finished):
    """The prompts of another task are split into characters by it, and seem to be too long."""
    with pytest.raises(ConfigError, match=r"another config.*\n(.*\n)*.*task.args.digits: 2 there, 9 here"):
        train(tiny_config(task__args__digits=9), finished)


def test_a_tag_in_front_of_a_thought_is_refused(tmp_path):
    """What follows the tag up to the end of the thought would be cut off with it."""
    plain, thinking = (
        make_experiment(validate(tiny_config(reflection__open_tag=True, rollout__prompt_length=32)), tmp_path)
        for _ in range(2)
    )
    check_prompts(plain)
    thinking.tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    with pytest.raises(ValueError, match="reflection.open_tag = True: .* inside a thought"):
        check_prompts(thinking)


def test_a_rule_without_a_teacher_needs_no_room_for_its_prompt(tmp_path):
    experiment = make_experiment(validate(tiny_config("grpo", reflection__context_length=1)), tmp_path)
    check_prompts(experiment)


def test_a_rule_that_reflects_needs_room_for_its_prompt(tmp_path):
    """Without it no row would have a reflection, and the run would be GRPO."""
    experiment = make_experiment(validate(tiny_config(reflection__prompt_length=3)), tmp_path)
    with pytest.raises(ValueError, match=r"reflection\.prompt_length = 3: the prompt of a reflection"):
        check_prompts(experiment)


def test_a_run_that_another_process_writes_is_refused(finished, tmp_path):
    run = runs.fresh(finished, tmp_path / "run")
    with locked(run), pytest.raises(ConfigError, match="is being written by process"):
        train(tiny_config(), run)
    assert {path.name for path in run.iterdir()} == {"lock", "warmup", "tokenizer"}


# ---------------------------------------------------------------- exactness


def test_amrsd_without_strength_is_grpo(finished, tmp_path):
    """To the last bit at every step, though reflections and teacher run: nothing is skipped."""
    without = tiny_config(credit__args={"lam": 0.0, "gamma": 0.0}, credit__exact_savings=False, **runs.EVERY_STEP)
    for name, config in (("grpo", tiny_config("grpo", **runs.EVERY_STEP)), ("amrsd", without)):
        train(config, runs.fresh(finished, tmp_path / name))
    trained = runs.metrics(tmp_path / "amrsd", "train")
    assert all(row["reflection/needed"] == 1.0 and row["reflection/usable"] > 0 for row in trained)
    for step in range(1, 5):
        runs.assert_same_state(tmp_path / "grpo", tmp_path / "amrsd", step)


def test_neither_skipping_nor_a_warning_changes_anything(finished, workdir):
    """Without the lossless skipping, and with a collapse monitor that warns at every step."""
    config = tiny_config(credit__exact_savings=False, monitor__window=1, monitor__patience=1, **runs.EVERY_STEP)
    config.monitor.mass.threshold = 1e-3
    train(config, workdir)
    for step in range(1, 5):
        runs.assert_same_state(finished, workdir, step)
    trained = runs.metrics(workdir, "train")
    assert all(row["reflection/needed"] == row["monitor/mass_fired"] == 1.0 for row in trained)


def test_a_run_on_eight_devices_is_the_run_on_one(finished, workdir):
    train(tiny_config(steps=1, mesh__data=2, mesh__fsdp=2, mesh__tensor=2, evaluation__every=0), workdir)
    one, (eight,) = runs.metrics(finished, "train")[0], runs.metrics(workdir, "train")
    assert one["reward/accuracy"] == eight["reward/accuracy"]
    assert eight["loss/total"] == pytest.approx(one["loss/total"], abs=1e-4)
    assert eight["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)


# ---------------------------------------------------------------- the update


def test_every_option_of_the_loss_at_once(workdir):
    config = tiny_config(
        steps=2, evaluation__every=0, loss__reduction="constant", loss__constant_length=32, loss__kl=0.05,
        loss__entropy=0.01, loss__old_logprobs="trainer", loss__importance_cap=2.0, loss__mask_truncated=True,
        reward__overlong_buffer=16, rollout__rounds=3, rollout__temperature=0.9, rollout__top_p=0.99,
        learning__micro_batches=2, optimizer__schedule="cosine",
    )  # fmt: skip
    train(config, workdir)
    first, second = runs.metrics(workdir, "train")
    for row in (first, second):
        assert np.isfinite(row["loss/total"]) and row["policy/kl_to_reference"] >= 0
    assert first["policy/kl_to_reference"] < second["policy/kl_to_reference"] + 1e-3  # it starts at the reference
    assert second["learning_rate"] < first["learning_rate"] == pytest.approx(1e-4, rel=0.2)


def test_gradients_that_are_not_finite_stop_the_run_and_leave_its_parameters(workdir, monkeypatch):
    original = loop.assign

    def poisoned(*args, **more):
        result = original(*args, **more)
        return dataclasses.replace(result, token_advantage=result.token_advantage * np.float32("nan"))

    monkeypatch.setattr(loop, "assign", poisoned)
    with pytest.raises(loop.Diverged, match=r"step 2: .* in 2 steps in a row.*optimizer.max_skipped = 2"):
        train(tiny_config(optimizer__max_skipped=2), workdir)
    assert [row["updates/skipped"] for row in runs.metrics(workdir, "train")] == [1.0, 1.0]
    assert all(np.isfinite(a).all() for a in runs.leaves(workdir, 2))
    results = json.loads((workdir / "results.json").read_text())
    assert (results["steps"], results["steps_without_signal"], results["eval"]["final"]) == (2, 2, None)


@pytest.mark.slow
def test_the_null_control_is_logged_and_changes_nothing(finished, workdir):
    train(
        tiny_config(steps=3, reflection__null_control_every=2, report__rollouts_every=2, evaluation__every=0), workdir
    )
    for step in range(1, 4):
        plain, row = runs.metrics(finished, "train")[step - 1], runs.metrics(workdir, "train")[step - 1]
        assert row["loss/total"] == plain["loss/total"] and row["credit/gap_failed"] == plain["credit/gap_failed"]
        assert ("credit/null_gap_failed" in row) == (step < 3)
    trained = [row for row in read_json_lines(workdir / "metrics.jsonl") if row["kind"] == "train"]
    assert ["seconds/null_control" in row for row in trained] == [True, True, False]  # not in those of `score`
    rows = runs.rollouts(workdir, 1)
    assert all((row["null_gap"] is None) == (row["gap"] is None) for row in rows)
    assert any(row["null_gap"] != row["gap"] for row in rows)
    assert "null_gap" not in runs.rollouts(finished, 1)[0] and "null_gap" not in runs.rollouts(workdir, 3)[0]


@pytest.mark.parametrize("rule", sorted(credit.RULES))
def test_every_rule_trains_by_one_line_of_the_config(finished, tmp_path, rule):
    experiment = make_experiment(validate(tiny_config(rule)), finished)
    state, fixed, progress = start_or_resume(experiment, finished, Checkpoints(tmp_path, keep=1), Clock())
    before = jax.device_get(state.params)
    update = make_train_step(
        experiment.policy, experiment.optimizer, experiment.schedule, experiment.objective, experiment.config.learning,
        experiment.mesh, teacher=experiment.teacher,
    )  # fmt: skip
    with jax.transfer_guard("disallow"):
        state, record, updates = training_step(experiment, update, state, fixed, progress, Clock())
    assert all(np.isfinite(one["total"]) and not one["skipped"] for one in updates) and len(updates) == 2
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, state.params)), strict=True))
    assert set(record.contexts.kind) <= {"", "hint", "critique", *experiment.rule.context.split(",")}
    assert (record.contexts.status.count("ok") > 0) == bool(
        record.logprobs.scored.any() or not experiment.rule.reads_gap
    )
    assert not record.credit.token_advantage[record.rollouts.mask == 0].any()
    if experiment.rule.distill:
        assert any(one["divergence"] != 0 for one in updates)


# ---------------------------------------------------------------- another run's policy


def test_a_critic_of_another_run_writes_the_contexts(finished, workdir):
    """From the run's own copy of the critic's parameters."""
    train(tiny_config("feedback_alignment", steps=1, external__workdir=str(finished), evaluation__every=0), workdir)
    assert {row["reflection_kind"] for row in runs.rollouts(workdir, 1)} == {"critic_feedback"}
    ours, theirs = (
        ocp.StandardCheckpointer().restore(folder.absolute())
        for folder in (workdir / "external", finished / "checkpoints" / "4" / "state")
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs["params"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_run_gives_its_policy_alone(finished, tmp_path):
    """Its benchmarks may be gone."""
    other = runs.fresh(finished, tmp_path / "other")
    config = read_config(finished)
    gone = dict(name="rows", args=dict(test=str(tmp_path / "gone.jsonl")))
    with config.unlocked():
        config.evaluation.benchmarks = dict(gone=dict(task=gone))
    (other / "config.json").write_text(json.dumps(config_json(validate(config))))
    with pytest.raises((OSError, ValueError), match="gone.jsonl"):
        make_experiment(validate(config), other)
    config = validate(tiny_config(teacher__kind="external", external__workdir=str(other)))
    experiment = make_experiment(config, finished)
    assert experiment.external.policy == experiment.teacher.stored == experiment.policy


def test_an_external_critic_ends_its_responses_in_its_own_way_too(finished, monkeypatch):
    own = make_experiment(validate(tiny_config("feedback_alignment")), finished).samplers["critic"].stop_tokens
    monkeypatch.setattr(experiments, "stop_ids", lambda model, tokenizer: (7,))
    config = validate(tiny_config("feedback_alignment", external__workdir=str(finished)))
    external = make_experiment(config, finished).external
    monkeypatch.undo()
    monkeypatch.setattr(experiments, "make_external", lambda *_: external)
    samplers = make_experiment(config, finished).samplers
    assert samplers["critic"].stop_tokens == tuple(sorted({7, *own}))
    assert samplers["rollout"].stop_tokens == samplers["reflection"].stop_tokens == own


def test_another_run_whose_model_is_meant_for_shorter_rows_is_refused(finished, monkeypatch):
    own = make_experiment(validate(tiny_config()), finished)
    short = dataclasses.replace(own.policy, architecture=dataclasses.replace(own.policy.architecture, max_positions=16))
    monkeypatch.setattr(experiments, "make_policy", lambda *_: short)
    for fields in (dict(teacher__kind="external"), dict(credit__rule="feedback_alignment")):
        config = validate(tiny_config(external__workdir=str(finished), **fields))
        with pytest.raises(ValueError, match="rows of at most 16 tokens"):
            experiments.make_external(config, own.tokenizer, own.mesh)


def test_another_run_that_does_not_fit_is_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="holds no run: it has no config.json"):
        train(tiny_config(teacher__kind="external", external__workdir=str(tmp_path)), tmp_path / "a")
    other = tiny_config(teacher__kind="external", external__workdir=str(finished))
    other.task.name, other.task.args = "strings", {}
    with pytest.raises(ConfigError, match="its tokenizer differs from this run's"):
        train(other, tmp_path / "b")
