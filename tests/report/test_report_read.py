"""Parsing of a workdir: what is tolerated, what is noted, and what is an error that names file and line."""

import json

import pytest

from amrsd_jax.report.read import dig, read, read_metrics

GOOD = '{"kind": "train", "step": 0, "rollout/reward": 0.5}'


def metrics(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    return path


def test_half_written_last_line_is_left_out_and_noted(tmp_path):
    records, notes = read_metrics(metrics(tmp_path, GOOD + '\n{"kind": "train", "step": 1, "rollout/rew'))
    assert [r["step"] for r in records["train"]] == [0]
    assert len(notes) == 1 and "Line 2 of metrics.jsonl" in notes[0] and "half-written" in notes[0]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"kind": "train", "st', "Unterminated string"),
        ("[1, 2]", "expected an object"),
        ('{"kind": "test", "step": 1}', "found 'test'"),
        ('{"kind": "train", "step": 1.5}', "integer step, found 1.5"),
        ('{"kind": "train", "step": true}', "integer step, found True"),
        ('{"kind": "train", "step": 1, "loss/total": "high"}', "for loss/total, found 'high'"),
    ],
)
def test_bad_line_is_an_error_with_file_and_line(tmp_path, line, complaint):
    path = metrics(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError) as error:
        read_metrics(path)
    assert str(error.value).startswith(f"{path}:2: ") and complaint in str(error.value)


def test_a_whole_last_line_that_is_wrong_is_no_half_line(tmp_path):
    for text in (GOOD + '\n{"kind": "train", "st\n', GOOD + '\n{"kind": "test", "step": 1}'):
        with pytest.raises(ValueError, match=r"metrics\.jsonl:2: "):
            read_metrics(metrics(tmp_path, text))


def test_a_step_written_twice_counts_once_and_lines_are_in_order(tmp_path):
    lines = [{"kind": "train", "step": s, "rollout/reward": r} for s, r in ((2, 0.1), (1, 0.2), (2, 0.3))]
    records, notes = read_metrics(metrics(tmp_path, "".join(json.dumps(line) + "\n" for line in lines)))
    assert [(r["step"], r["rollout/reward"]) for r in records["train"]] == [(1, 0.2), (2, 0.3)]
    assert notes == []


def test_values_that_are_not_finite_become_gaps_and_are_noted(tmp_path):
    text = '{"kind": "train", "step": 7, "loss/total": NaN, "policy/kl": Infinity, "policy/entropy": null}\n'
    records, notes = read_metrics(metrics(tmp_path, text))
    assert records["train"][0]["loss/total"] is None and records["train"][0]["policy/kl"] is None
    assert notes == ["Metrics hold 2 values that are not finite, first loss/total at step 7."]


def test_a_whole_run_is_read(workdir):
    run = read(workdir)
    assert (len(run.train), len(run.evals), len(run.timelines), list(run.rollouts)) == (60, 4, 60, [0, 25, 45])
    assert run.config["task"]["digits"] == 3 and run.results["steps"] == 60 and run.notes == []


def test_an_empty_workdir_is_read_with_notes(tmp_path):
    run = read(tmp_path)
    assert not (run.config or run.results or run.train or run.evals or run.timelines or run.rollouts)
    assert any("metrics.jsonl" in note for note in run.notes)
    assert any("unfinished" in note for note in run.notes)


def test_skipped_optimizer_steps_are_noted(tmp_path):
    lines = [{"kind": "train", "step": s, "optimizer/skipped": float(s == 1)} for s in range(3)]
    metrics(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))
    assert "The optimizer skipped 1 of 3 steps." in read(tmp_path).notes


def test_half_a_timeline_is_left_out_and_a_wrong_one_named(workdir):
    path = workdir / "timeline.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 60, "sec')
    run = read(workdir)
    assert len(run.timelines) == 60 and run.notes == [
        "Line 61 of timeline.jsonl, the last, is half-written and was left out."
    ]
    path.write_text(whole + '{"step": 60, "seconds": 1.0, "phases": [], "slots": 32}\n')
    with pytest.raises(ValueError, match=r"timeline\.jsonl:61: .* lacks beside, busy"):
        read(workdir)


def test_missing_folder_and_broken_json_name_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        read(tmp_path)


def test_dig_takes_the_first_path_that_exists():
    tree = {"credit": {"rule": "amrsd"}, "task": "sums"}
    assert dig(tree, "credit.name", "credit.rule") == "amrsd"
    assert dig(tree, "task.name", "method", default="?") == "?"
