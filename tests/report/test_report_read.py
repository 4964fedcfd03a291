"""Reading a workdir: what is tolerated, what is noted, and what is an error that names the file."""

import json

import pytest
from synthetic_run import train_record, write_lines

from amrsd_jax.report.read import read


def test_a_whole_run_is_read(workdir):
    run = read(workdir)
    assert (len(run.train), len(run.evals), len(run.timelines), list(run.rollouts)) == (40, 3, 40, [1, 20, 40])
    assert run.config["task"]["name"] == "arithmetic" and run.results["steps"] == 40 and run.notes == []
    assert run.environment["jax"] == "0.10.2"


def test_an_empty_workdir_is_read(tmp_path):
    run = read(tmp_path)
    assert not (run.config or run.results or run.train or run.evals or run.timelines or run.rollouts)


def test_values_that_are_not_finite_and_skipped_updates_are_noted(tmp_path):
    broken = train_record(2) | {"loss/total": None, "grad_norm": float("inf"), "updates/skipped": 1}
    write_lines(tmp_path / "metrics.jsonl", [broken, train_record(1)])
    run = read(tmp_path)
    assert [line["step"] for line in run.train] == [1, 2]
    assert run.train[1]["loss/total"] is None and run.train[1]["grad_norm"] is None
    assert any("2 values that are not finite" in note for note in run.notes)
    assert any("skipped in 1 of 2 steps" in note for note in run.notes)


def test_results_of_an_earlier_start_are_left_out(workdir):
    """The run was extended and has gone on; its results of step 40 are not those of step 41."""
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(train_record(41)) + "\n")
    run = read(workdir)
    assert run.results == {} and any("ended at step 40" in note for note in run.notes)


def test_missing_folders_broken_json_and_old_formats_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(ValueError, match="format 1"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("config.json", "[1]", "config.json: list"),
        ("results.json", "3", "results.json: int"),
        ("environment.json", "[" * 100_000, "environment.json: not JSON"),
        ("metrics.jsonl", '{"kind": "train"}\n', "metrics.jsonl: step = None"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl line 1: list"),
        ("metrics.jsonl", "\x00\x00\n", "metrics.jsonl line 1: not JSON"),
        ("timeline.jsonl", '{"seconds": 1}\n', "timeline.jsonl: step = None"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)
