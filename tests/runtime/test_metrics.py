"""Metrics survive kills and resumes."""

import json

import pytest

from amrsd_jax.files import read_json_lines
from amrsd_jax.runtime.metrics import Metrics


def test_rows_come_back_and_a_half_written_one_is_left_out(tmp_path):
    metrics = Metrics(tmp_path, -1)
    metrics.write("eval", 0, {"eval/sampled": 0.25})
    metrics.write("train", 1, {"rollout/reward": None, "loss/total": 1.5, "grad_norm": float("nan")})
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"kind": "train", "step": 2, "loss')
    assert read_json_lines(path) == [
        {"kind": "eval", "step": 0, "eval/sampled": 0.25},
        {"kind": "train", "step": 1, "rollout/reward": None, "loss/total": 1.5, "grad_norm": None},
    ]
    assert list((tmp_path / "tensorboard").iterdir())


def test_resuming_drops_what_comes_after_the_checkpoint(tmp_path):
    metrics = Metrics(tmp_path, -1)
    for step in range(5):
        metrics.write("train", step, {})
        metrics.write_timeline(step, {"seconds": 1.5})
    metrics.close()
    with (tmp_path / "timeline.jsonl").open("a") as file:
        file.write('{"step": 5, "sec')
    Metrics(tmp_path, 2).close()
    assert [row["step"] for row in read_json_lines(tmp_path / "metrics.jsonl")] == [0, 1, 2]
    assert read_json_lines(tmp_path / "timeline.jsonl") == [{"step": step, "seconds": 1.5} for step in range(3)]
    Metrics(tmp_path, -1).close()
    assert read_json_lines(tmp_path / "metrics.jsonl") == read_json_lines(tmp_path / "timeline.jsonl") == []


def test_a_resumed_run_says_which_metrics_are_lost(tmp_path, capsys):
    def reopened(text, step=2):
        if text is None:
            (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        else:
            (tmp_path / "metrics.jsonl").write_bytes(text)
        Metrics(tmp_path, step).close()
        return capsys.readouterr().err

    rows = [{"kind": "eval", "step": 0}, {"kind": "train", "step": 1}, {"kind": "train", "step": 2}]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    assert reopened(b"".join(lines)) == ""
    assert reopened(b"".join(lines), step=0) == reopened(None, step=-1) == ""
    for lost in (b"", None):
        assert all(text in reopened(lost) for text in ("2 steps (1 to 2)", "no evaluation before training"))
    assert "step 2, though the checkpoint" in reopened(b"".join(lines)[:-1])  # cut
    said = reopened(lines[0] + b"\x00\x00\n" + b"\xff\xfe\n" + b"[1]\n" + b'{"kind": "train"}\n' + lines[1] + lines[2])
    assert all(f"line {number}: " in said for number in (2, 3, 4)) and "though" not in said
    assert [row["step"] for row in read_json_lines(tmp_path / "metrics.jsonl")] == [0, 1, 2]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\nnot json\n" + json.dumps({"step": 2}) + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl line 2: not JSON"):
        read_json_lines(path)
    assert read_json_lines(tmp_path / "absent.jsonl") == []
