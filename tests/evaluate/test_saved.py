"""Evaluation of saved policies: the command, a run's checkpoint and its export, interrupted evaluations, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from amrsd_jax.evaluate import Evaluator, evaluator, files
from amrsd_jax.evaluate.saved import evaluate_saved, find, make_task
from amrsd_jax.export import export
from amrsd_jax.files import read_json_lines
from amrsd_jax.interrupt import Interrupted
from amrsd_jax.policy.chat_template import PLAIN
from amrsd_jax.runtime.results import evaluated
from amrsd_jax.runtime.workdir import locked
from amrsd_jax.sections import ConfigError
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[2]
PAIRS = {"task": {"name": "addition", "args": {"digits": 2}}, "problems": 5, "samples": 3, "temperature": 0.6}
CONFIG = f"""
from tests.tiny import tiny_config
def get_config():
    config = tiny_config()
    config.evaluation.benchmarks = {{"pairs": {PAIRS}}}
    return config
"""


def config_with(**benchmarks):
    config = tiny_config()
    config.evaluation.benchmarks = benchmarks
    return config


@pytest.fixture(scope="module")
def first(finished, tmp_path_factory):
    """The folder of an evaluation of the finished run."""
    out = tmp_path_factory.mktemp("evaluated") / "first"
    evaluate_saved(config_with(pairs=PAIRS), str(finished), out)
    return out


@pytest.mark.slow
def test_the_command_repeats_the_function_bit_for_bit(finished, first, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    flags = [f"--config={tmp_path / 'config.py'}", f"--checkpoint={finished}", f"--out={tmp_path / 'again'}"]
    command = [sys.executable, "-m", "amrsd_jax.evaluate", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("test.parquet", "pairs.parquet", "evaluation.json", "evaluation.md"):
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes(), name
    assert done.stdout.strip() == (first / "evaluation.md").read_text().strip()
    rows = [line.split(" | ")[:3] for line in done.stdout.splitlines()[2:4]]
    assert rows == [["| test", "16", "1"], ["| pairs", "5", "3"]]


@pytest.mark.slow
def test_results_are_neither_repeated_nor_overwritten(finished, first, capsys):
    before = {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()}
    record = evaluate_saved(config_with(pairs=PAIRS), str(finished), first)
    assert capsys.readouterr().err.count(f"already in {first}") == 2 and list(record) == ["test", "pairs"]
    with pytest.raises(ConfigError, match="holds 'pairs' with other settings; .*\n  samples: 3 there, 4 here"):
        evaluate_saved(config_with(pairs=PAIRS | {"samples": 4}), str(finished), first)
    config = config_with(pairs=PAIRS)
    config.rollout.stop = ("#",)
    with pytest.raises(ConfigError, match="with other settings; .*\n  stop"):
        evaluate_saved(config, str(finished), first)
    assert {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_the_command_measures_what_training_did(finished, first):
    final = json.loads((finished / "results.json").read_text())["eval"]["final"]
    assert json.loads((first / "evaluation.json").read_text())["test"]["metrics"] == {
        name: value for name, value in final.items() if name != "step"
    }
    alone, other = first / "test.parquet", finished / "evaluations" / "step_00004" / "test.parquet"
    assert pq.read_table(alone).equals(pq.read_table(other))


@pytest.mark.slow
def test_an_export_is_the_checkpoint(finished, first, tmp_path):
    export(finished, tmp_path / "model")
    record = evaluate_saved(config_with(pairs=PAIRS), str(tmp_path / "model"), tmp_path / "out")
    for name, done in json.loads((first / "evaluation.json").read_text()).items():
        assert record[name]["metrics"] == done["metrics"]
        assert pq.read_table(first / f"{name}.parquet").equals(pq.read_table(tmp_path / "out" / f"{name}.parquet"))
    assert (
        evaluate_saved(tiny_config(model=str(tmp_path / "model"), warmup__documents=0), "", tmp_path / "out") == record
    )


@pytest.mark.slow
def test_answers_do_not_depend_on_slots_groups_or_devices(finished, first, tmp_path):
    config = config_with(pairs=PAIRS)
    config.rollout.update(slots=8, admit=2, group=2, segment=8)
    config.mesh.update(data=2, tensor=2)
    record = evaluate_saved(config, str(finished / "checkpoints" / "4"), tmp_path)
    alone, other = (pq.read_table(folder / "pairs.parquet").to_pylist() for folder in (tmp_path, first))
    assert [row["text"] for row in alone] == [row["text"] for row in other]
    assert record["pairs"]["metrics"] == json.loads((first / "evaluation.json").read_text())["pairs"]["metrics"]
    assert len({row["text"] for row in alone if row["mode"] == "sampled"}) > 5  # samples of a question are not one


@pytest.mark.slow
def test_finished_benchmarks_are_kept(finished, first, tmp_path, monkeypatch):
    original, evaluated_names = Evaluator.__call__, []

    def stop(self, benchmark, *args):
        evaluated_names.append(benchmark.name)
        if evaluated_names == ["test", "pairs"]:
            raise KeyboardInterrupt
        return original(self, benchmark, *args)

    monkeypatch.setattr(Evaluator, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_saved(config_with(pairs=PAIRS), str(finished), tmp_path)
    assert list(json.loads((tmp_path / "evaluation.json").read_text())) == ["test"]
    evaluate_saved(config_with(pairs=PAIRS), str(finished), tmp_path)
    assert evaluated_names == ["test", "pairs", "pairs"]
    assert (tmp_path / "evaluation.json").read_bytes() == (first / "evaluation.json").read_bytes()


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_between_two_segments(finished, first, tmp_path, monkeypatch):
    """Decoding goes on for hours where a benchmark is large; the first benchmark is kept."""
    segments, completed = [], evaluator.completed_batches

    def counted(*arguments):
        for batch in completed(*arguments):
            segments.append(len(batch))
            if len(written) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    written, write = [], files.write_answers
    monkeypatch.setattr(files, "write_answers", lambda path, *rest: (write(path, *rest), written.append(path)))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="SIGTERM"):
        patch.setattr(evaluator, "completed_batches", counted)
        evaluate_saved(config_with(pairs=PAIRS), str(finished), tmp_path)
    assert [path.name for path in written] == ["test.parquet"]
    evaluate_saved(config_with(pairs=PAIRS), str(finished), tmp_path)
    assert [path.name for path in written] == ["test.parquet", "pairs.parquet"]
    assert (tmp_path / "evaluation.json").read_bytes() == (first / "evaluation.json").read_bytes()


@pytest.mark.slow
def test_a_record_without_answers_is_not_overwritten_with_other_settings(finished, first, tmp_path):
    out = shutil.copytree(first, tmp_path / "out")
    (out / "pairs.parquet").unlink()
    with pytest.raises(ConfigError, match="holds 'pairs' with other settings"):
        evaluate_saved(config_with(pairs=PAIRS | {"samples": 4}), str(finished), out)
    evaluate_saved(config_with(pairs=PAIRS), str(finished), out)
    assert (out / "evaluation.json").read_bytes() == (first / "evaluation.json").read_bytes()
    assert pq.read_table(out / "pairs.parquet").equals(pq.read_table(first / "pairs.parquet"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_stepped_over_here_too(finished, first, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "4" / "state")
    record = evaluate_saved(config_with(), str(run), tmp_path / "out")
    assert record["test"]["settings"]["checkpoint"] == f"{run} step 3"
    assert export(run, tmp_path / "model") == 3
    assert capsys.readouterr().err.count("checkpoint 4 is damaged: no state") == 2
    with pytest.raises(ValueError, match="checkpoints/4: damaged: no state"):
        find(str(run / "checkpoints" / "4"), tiny_config())


@pytest.mark.slow
def test_benchmarks_beside_training_change_nothing_of_it(finished, tmp_path):
    for part in ("warmup", "tokenizer"):
        shutil.copytree(finished / part, tmp_path / part)
    results = train(config_with(pairs=PAIRS | {"every": 4}), tmp_path)
    alone, other = (
        [r for r in read_json_lines(w / "metrics.jsonl") if r["kind"] == "eval"] for w in (tmp_path, finished)
    )
    assert [{k: v for k, v in row.items() if "/pairs/" not in k} for row in alone] == other
    assert ["eval/pairs/pass_at_3" in row for row in alone] == [True, False, True]
    pairs = results["eval"]["benchmarks"]["pairs"]
    assert (pairs["initial"]["step"], pairs["final"]["step"], pairs["mean_of_last"]["steps"]) == (0, 4, [4])
    assert results["eval"]["mean_of_last"]["steps"] == [2, 4]
    assert (tmp_path / "evaluations" / "step_00004" / "pairs.parquet").exists()
    assert not (tmp_path / "evaluations" / "step_00002" / "pairs.parquet").exists()


# ---------------------------------------------------------------- refusals


def test_a_checkpoint_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match="model = 'tiny' has no weights and there is no checkpoint: expected a run"):
        find("", tiny_config())
    with pytest.raises(ConfigError, match="checkpoint = 'nowhere': expected a run"):
        find("nowhere", tiny_config())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint$"):
        find(str(tmp_path), tiny_config())
    with pytest.raises(ValueError, match="config.json: no such file"):
        (tmp_path / "empty").mkdir()
        find(str(tmp_path / "empty"), tiny_config())


@pytest.mark.slow
def test_a_bad_row_stops_before_anything_is_written(finished, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"question": "1+1"}\n')
    broken = {"task": {"name": "mathematics", "args": {"test": str(tmp_path / "bad.jsonl")}}}
    with pytest.raises(ValueError, match=r"evaluation.benchmarks.broken: .*bad.jsonl line 1: no column 'answer'"):
        evaluate_saved(config_with(broken=broken), str(finished), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_needs_no_training_rows(tmp_path, capsys):
    (tmp_path / "test.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    args = dict(train="gone.jsonl", test="test.jsonl", folder=str(tmp_path))
    config = tiny_config(warmup__documents=0, tokenizer="any")
    config.task.name, config.task.args = "mathematics", args
    assert make_task(validate(config, splits=("test",))).size("test") == 1
    config.task.args.validation = 0.5
    task = make_task(validate(config, splits=("test",)))
    assert (task.size("test"), task.size("validation")) == (1, 0) and "gone.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"test": 1}', '{"test": {"metrics": {}}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match="evaluation.json: "):
        files.read_record(tmp_path)


# ---------------------------------------------------------------- summary of a run's evaluations


@pytest.mark.slow
def test_template_and_positions_of_the_evaluation_reach_the_policy(finished, tmp_path):
    config = config_with()
    with config.unlocked():
        config.chat_template = {"path": "plain"}
    assert find(str(finished), config).tokenizer.chat_template == PLAIN
    export(finished, tmp_path / "model")
    found = find(str(tmp_path / "model"), tiny_config(architecture__max_positions=4096)).config.architecture
    assert found.max_positions == 4096 and "width" not in found  # whose sizes are the checkpoint's


@pytest.mark.slow
def test_two_commands_cannot_write_one_folder(finished, tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="is being written by process"):
        evaluate_saved(config_with(), str(finished), tmp_path)


def row(step, **values):
    return {"kind": "eval", "step": step} | {f"eval/{name}": value for name, value in values.items()}


def test_best_final_and_mean_of_last_by_hand():
    test, validation = [0.1, 0.2, 0.6, 0.5, 0.4], [0.0, 0.1, 0.3, 0.7, 0.2]
    rows = [
        row(10 * i, sampled=t, sampled_low=0.0, n=8, **{"validation/sampled": v, "validation/n": 4})
        for i, (t, v) in enumerate(zip(test, validation, strict=True))
    ]
    summary = evaluated(rows, last=3, end=40)
    assert summary["initial"]["sampled"] == 0.1
    assert summary["final"] == {"step": 40, "sampled": 0.4, "sampled_low": 0.0, "n": 8}
    assert (summary["best"]["step"], summary["best_by_validation"]["step"]) == (20, 30)
    assert summary["best_by_validation"]["sampled"] == 0.5  # of the test split
    assert summary["mean_of_last"] == {"steps": [20, 30, 40], "sampled": pytest.approx(0.5), "n": 8}
    assert summary["benchmarks"]["validation"]["best"] == {"step": 30, "sampled": 0.7, "n": 4}


def test_a_score_that_some_evaluations_lack_has_the_mean_of_the_others():
    """A verifier gives it where it can; null stands for what is not finite."""
    rows = [
        row(10, sampled=0.2, score_far=4.0),
        row(20, sampled=0.4),
        row(30, sampled=0.6, score_far=None, score_near=1.0),
    ]
    assert evaluated(rows, last=3, end=30)["mean_of_last"] == {
        "steps": [10, 20, 30], "sampled": pytest.approx(0.4), "score_far": 4.0, "score_near": 1.0,
    }  # fmt: skip


def test_of_equal_evaluations_the_last_is_the_best():
    """Its checkpoint is the one that is kept."""
    rows = [row(step, sampled=0.5, **{"validation/sampled": 0.3}) for step in (0, 10, 20)]
    summary = evaluated([*rows, row(30, sampled=0.4, **{"validation/sampled": 0.2})], last=2, end=30)
    assert summary["best"]["step"] == summary["best_by_validation"]["step"] == 20


def test_a_run_that_was_not_trained_has_no_mean():
    summary = evaluated([row(0, sampled=0.1, n=4)], last=5, end=0)
    assert summary["mean_of_last"] is None and summary["best"]["step"] == 0 and "best_by_validation" not in summary
