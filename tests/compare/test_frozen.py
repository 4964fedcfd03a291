"""Problems found again by their ids, for tasks with and without an end."""

import json

from amrsd_jax import tasks
from amrsd_jax.compare.frozen import find_problems


def test_problems_of_a_task_without_an_end():
    task = tasks.make("addition", {"digits": 2}, seed=3)
    assert find_problems(task, {"train-7", "train-0", "test-1", "other"}) == {
        f"train-{i}": task.problem("train", i) for i in (0, 7)
    }


def test_problems_of_a_file(tmp_path):
    rows = [{"question": f"{i} + 1?", "answer": f"one more #### {i + 1}"} for i in range(9)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    task = tasks.make("rows", files | {"answer_after": "####"}, seed=0)
    found = find_problems(task, {"train-3", "train-9", "train-99"})
    assert {name: (p.question, p.answer, p.reference) for name, p in found.items()} == {
        "train-3": ("2 + 1?", "3", "one more"),
        "train-9": ("8 + 1?", "9", "one more"),
    }
