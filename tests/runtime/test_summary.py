"""What is written of one step, from a record made by hand, and of a run."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from amrsd_jax.config import LoraConfig
from amrsd_jax.evaluate.estimators import wilson
from amrsd_jax.policy import preset
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Contexts, Credit, LogProbs, StepRecord, Verdict
from amrsd_jax.runtime.results import outcome, write_results
from amrsd_jax.runtime.rollouts import SCHEMA, read_rollouts, rollout_files, write_rollouts
from amrsd_jax.runtime.summary import summary
from tests.tiny import SUM, tiny_rollouts

SECONDS = {"sample": 2.0, "reflect": 1.0, "update": 1.0}
UPDATES = [
    {"total": 1.0, "entropy": 2.0, "grad_norm": 3.0, "skipped": 0.0},
    {"total": 2.0, "entropy": 4.0, "grad_norm": 1.0, "skipped": 1.0},
]


def step_record(
    status=("ok", "truncated", "not_needed", "not_needed"), scored=(True, False, False, False)
) -> StepRecord:
    """Two groups of two rows of 4, 2, 1 and 1 tokens; rows 0 and 3 are right, and the first group alone has an advantage."""
    mask = (np.arange(4) < np.array([4, 2, 1, 1])[:, None]).astype(np.float32)
    verdicts = tuple(
        Verdict(float(right), "message", None, formatted, scores)
        for right, formatted, scores in (
            (1, True, {"lenient": 1.0}),
            (0, False, {}),
            (0, True, {"lenient": 0.0}),
            (1, True, {}),
        )
    )
    rollouts = tiny_rollouts(
        [1, 0, 0, 1], length=4, mask=mask, verdicts=verdicts, finish_reason=("stop", "length", "stop", "stop"),
        sampler_logprobs=-1.0 * mask, response=np.tile(np.arange(4, 8, dtype=np.int32), (4, 1)),
    )  # fmt: skip
    contexts = Contexts(
        ("hint", "critique", "", ""), tuple(status), ("a", "", "", ""),
        np.array([0]), np.ones((1, 3), np.int32), np.array([3], np.int32), cut=(0,),
    )  # fmt: skip
    student, teacher = -1.25 * mask, -0.75 * mask
    none = np.zeros((0, 4, 4), np.float32), np.zeros((0, 4), bool)
    logprobs = LogProbs(student, teacher, 0.5 * mask, 0.25 * mask, np.array(scored), *none)
    advantage = np.float32([1, -1, 0, 0])
    credit = Credit(advantage, advantage[:, None] * mask, {"delta": 0.5, "gap_failed": None})
    return StepRecord(rollouts, contexts, logprobs, credit, {"data/prompts_drawn": 2.0, "tokens/sampled": 60})


def test_the_interval_of_the_accuracy_is_over_prompts():
    """Prompts with accuracies 0 and 1/2: t = 12.706 times a standard error of 1/4, cut to shares. Equal ones: Wilson's of two."""
    record = step_record()
    for right, interval in (([0, 0, 1, 0], (0.0, 1.0)), ([1, 0, 0, 1], wilson(1, 2))):
        verdicts = tuple(Verdict(float(one), "message", None, True) for one in right)
        rollouts = dataclasses.replace(record.rollouts, verdicts=verdicts)
        row = row_of(dataclasses.replace(record, rollouts=rollouts))
        assert (row["reward/accuracy_low"], row["reward/accuracy_high"]) == pytest.approx(interval)


def test_flops_of_an_update(monkeypatch):
    """A forward pass counts once more for each gradient; of 8 response and 4 prompt tokens the former have logits."""
    monkeypatch.setattr("amrsd_jax.runtime.summary.model_flops_utilisation", lambda flops, *others: flops)
    tiny = preset("tiny")

    def flops(architecture):
        return summary(step_record(), UPDATES, SECONDS, group=2, architecture=architecture, devices=1)["mfu"]

    larger = dataclasses.replace(tiny, vocab_size=tiny.vocab_size + 16)
    assert flops(larger) - flops(tiny) == 3 * 8 * 2 * tiny.width * 16
    assert flops(dataclasses.replace(tiny, lora=LoraConfig(rank=2))) == pytest.approx(flops(tiny) * 2 / 3)


def row_of(record):
    return summary(record, UPDATES, SECONDS, group=2, architecture=preset("tiny"), devices=1)


def test_the_metrics_of_a_step_by_hand():
    row = row_of(step_record())
    expected = {
        "reward/mean": 0.5, "reward/std": 0.5, "reward/accuracy": 0.5, "reward/format": 0.75, "reward/score_lenient": 0.25,
        "response_length/mean": 2.0, "response_length/min": 1.0, "response_length/max": 4.0,
        "response_length/clip_ratio": 0.25, "groups/zero_advantage": 0.5,
        "reflection/needed": 0.5, "reflection/skipped": 0.5, "reflection/usable": 0.5, "reflection/cut": 1.0,
        "reflection/unusable_truncated": 0.25,
        "reflection/unusable_leak": 0.0, "policy/sampler_mismatch": 0.25, "credit/delta": 0.5, "credit/gap_failed": None,
        "loss/total": 1.5, "policy/entropy": 3.0, "grad_norm": 2.0, "updates/skipped": 0.5, "data/prompts_drawn": 2.0,
        "seconds/sample": 2.0, "seconds/step": 4.0, "tokens/sampled": 60, "tokens/sampled_per_s": 30.0, "tokens/s": 15.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["reward/accuracy_low"] < 0.5 < row["reward/accuracy_high"]
    assert "mfu" not in row and "memory/peak_gib" not in row  # the CPU reports neither
    assert json.loads(json.dumps(row)) == row


def test_the_sets_of_a_mixture_have_metrics_of_their_own(tmp_path):
    """The first group, of 4 and 2 tokens, one right, is of the set `a`, the second, of 1 and 1, one right, of `b`."""
    record = step_record()
    problems = tuple(dataclasses.replace(SUM, data_set=name) for name in "aabb")
    record = dataclasses.replace(record, rollouts=dataclasses.replace(record.rollouts, problems=problems))
    row = row_of(record)
    expected = {
        "reward/mean": 0.5, "reward/a/mean": 0.5, "reward/b/mean": 0.5, "reward/a/format": 0.5, "reward/b/format": 1.0,
        "reward/a/score_lenient": 0.5, "reward/b/score_lenient": 0.0, "response_length/a/mean": 3.0,
        "response_length/b/max": 1.0, "response_length/a/clip_ratio": 0.5, "data/a/prompts": 1, "data/b/prompts": 1,
        "groups/zero_advantage": 0.5, "groups/a/zero_advantage": 0.0, "groups/b/zero_advantage": 1.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert "reward/score_lenient" not in row  # verifiers of different sets have scores of different names
    path = tmp_path / "rollouts" / "step_00001.parquet"
    write_rollouts(path, 1, 2, embedded_tokenizer(["5"]), record)
    assert [one["data_set"] for one in read_rollouts(path).to_pylist()] == ["a", "a", "b", "b"]


def test_shares_of_nothing_are_none():
    row = row_of(step_record(status=["not_needed"] * 4, scored=[False] * 4))
    assert row["reflection/usable"] is None and row["policy/sampler_mismatch"] is None
    scored = dataclasses.replace(step_record(status=["not_needed"] * 4, scored=[False] * 4), all_scored=True)
    assert row_of(scored)["policy/sampler_mismatch"] == 0.25  # the student scored all rows, without a teacher
    assert row["reflection/needed"] == 0.0


def test_rollouts_are_read_back(tmp_path):
    tokenizer = embedded_tokenizer(["5", "+", "7"])
    path = tmp_path / "rollouts" / "step_00010.parquet"
    write_rollouts(path, 10, 2, tokenizer, step_record())
    first, second, *_ = read_rollouts(path).to_pylist()
    assert (first["step"], first["group"], first["reflection"], first["advantage"]) == (10, 0, "a", 1.0)
    assert first["tokens"] == [4, 5, 6, 7] and first["gap"] == [0.5] * 4 and first["student_logprobs"] == [-1.25] * 4
    assert second["tokens"] == [4, 5] and second["student_logprobs"] == [-1.0] * 2  # the sampler's
    assert second["gap"] is second["teacher_logprobs"] is second["student_entropy"] is None
    assert dict(first["scores"]) == {"lenient": 1.0} and second["token_advantage"] == [-1.0] * 2
    write_rollouts(path.with_name("step_00002.parquet"), 2, 2, tokenizer, step_record())
    assert list(rollout_files(tmp_path)) == [2, 10]


def test_a_wrong_rollout_file_is_named(tmp_path):
    path = tmp_path / "step_00001.parquet"
    path.write_text("text")
    with pytest.raises(ValueError, match=path.name):
        read_rollouts(path)
    pq.write_table(SCHEMA.empty_table().drop_columns(["gap"]), path)
    with pytest.raises(ValueError, match=f"{path.name}.*gap"):
        read_rollouts(path)
    pq.write_table(SCHEMA.empty_table(), path)
    with pytest.raises(ValueError, match=path.name):
        read_rollouts(path)


def test_results_of_a_run(tmp_path):
    """Four evaluations; the best by validation is not the best on the test split."""
    rows = [{"kind": "train", "step": s, "reflection/skipped": 0.25 * s} for s in (1, 2, 3)]
    for step, test, validation in ((0, 0.1, 0.2), (1, 0.5, 0.3), (2, 0.4, 0.6), (3, 0.3, 0.1)):
        own = {"eval/sampled": test, "eval/sampled_low": 0.0, "eval/n": 16}
        rows.append(
            {"kind": "eval", "step": step} | own | {"eval/validation/sampled": validation, "eval/validation/n": 9}
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = write_results(tmp_path, 3, {"sample": 1.0}, 2.0, last=2, stopped=None)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (results["steps"], results["reflections_skipped"], results["stopped"]) == (3, 0.5, None)
    evaluations = results["eval"]
    assert [evaluations[name]["step"] for name in ("initial", "best", "final", "best_by_validation")] == [0, 1, 3, 2]
    assert evaluations["mean_of_last"] == {"steps": [2, 3], "sampled": pytest.approx(0.35), "n": 16}
    assert evaluations["benchmarks"]["validation"]["best"]["step"] == 2
    assert len(outcome(results)) == 2


def test_an_interrupted_run_has_no_final_evaluation(tmp_path):
    rows = [{"kind": "eval", "step": step, "eval/sampled": 0.5, "eval/n": 4} for step in (0, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, over, final in ((2, True, 2), (3, True, None), (2, False, None)):
        results = write_results(tmp_path, step, {}, 1.0, last=2, over=over)
        assert (results["eval"]["final"] or {}).get("step") == final and results["eval"]["best"]["step"] == 2
        assert len(outcome(results)) == 1


def test_a_run_whose_metrics_are_lost_calls_no_other_evaluation_the_initial_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"kind": "eval", "step": 2, "eval/sampled": 0.5, "eval/n": 4}) + "\n"
    )
    results = write_results(tmp_path, 2, {}, 1.0, last=2)
    assert results["eval"]["initial"] is None and results["eval"]["final"]["step"] == 2
    (tmp_path / "metrics.jsonl").unlink()
    results = write_results(tmp_path, 2, {}, 1.0, last=2)
    assert results["eval"]["final"] is None and outcome(results)


def test_steps_without_a_learning_signal_are_counted(tmp_path):
    rows = [
        {"kind": "train", "step": step, "reflection/skipped": 0, "grad_norm": norm}
        for step, norm in ((1, 0.0), (2, 0.5))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = write_results(tmp_path, 2, {}, 1.0, last=2)
    assert results["steps_without_signal"] == 1 and any("1 of 2 steps" in line for line in outcome(results))
