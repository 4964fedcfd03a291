"""The report on a task's rows counts duplicates, usual answers, long prompts and overlaps."""

import json

from amrsd_jax.tasks import registry
from amrsd_jax.tasks.data_report import report


def test_the_report_counts_what_it_says(tmp_path):
    """One question is there twice, one has six characters, and one of the test split is a training question."""
    pairs = {
        "train": [("1+1?", "2"), ("1 + 1?", "2"), ("2+1?", "3"), ("0+2?", "2")],
        "test": [("1+1", "2"), ("5+5?", "10")],
    }
    for split, rows in pairs.items():
        lines = [json.dumps(dict(question=question, answer=answer)) + "\n" for question, answer in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    task = registry.make("rows", dict(folder=str(tmp_path), train="train.jsonl", test="test.jsonl"), seed=0)
    found = report(task, lambda problem: [7] * len(problem.question), longest=5)
    train, test = (found["splits"][name] for name in ("train", "test"))
    assert (train["rows"], train["duplicates"], train["prompt_tokens"]["too_long"]) == (4, 1, 1)
    assert (train["answers"]["usual_share"], test["answers"]["usual"], test["answers"]["usual_share"]) == (
        3 / 4,
        "2",
        1 / 2,
    )
    assert found["overlap_with_train"] == {"test": {"questions": 1, "stems": 1}}
    assert (train["selftest"], test["selftest"]["faults"]) == ({"rows": 4, "faults": []}, [])


def test_a_verifier_that_writes_no_gold_answer_has_no_row_tested(tmp_path):
    (tmp_path / "mine.py").write_text("def verify(problem, response):\n    return 1.0\n")
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "1"}\n{"question": "r", "answer": "2"}\n')
    args = dict(train="rows.jsonl", test="rows.jsonl", folder=str(tmp_path), verifier=f"{tmp_path}/mine.py:verify")
    found = report(registry.make("rows", args, seed=0), lambda problem: [7], longest=5)
    assert found["splits"]["train"]["selftest"] == {"rows": 0, "faults": []}
