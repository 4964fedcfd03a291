"""Rollouts come back from their file as they were, with the parameters that sampled them, or an error names what is wrong."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amrsd_jax.compare import load, parameters
from amrsd_jax.tasks import registry
from tests import runs


def test_problems_of_a_task_without_an_end():
    task = registry.make("addition", {"digits": 2}, seed=3)
    assert load.find_problems(task, {"train-7", "train-0", "test-1", "other"}) == {
        f"train-{i}": task.problem("train", i) for i in (0, 7)
    }


def test_problems_of_a_file(tmp_path):
    rows = [{"question": f"{i} + 1?", "answer": f"one more #### {i + 1}"} for i in range(9)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    task = registry.make("rows", files | {"answer_after": "####"}, seed=0)
    problems = load.find_problems(task, {"train-3", "train-9", "train-99"})
    assert {name: (p.question, p.answer, p.reference) for name, p in problems.items()} == {
        "train-3": ("2 + 1?", "3", "one more"),
        "train-9": ("8 + 1?", "9", "one more"),
    }


@pytest.mark.slow
def test_rollouts_come_back_from_their_file(finished):
    loaded, rows = load.load(finished, step=2), runs.rollouts(finished, 2)
    rollouts, experiment = loaded.rollouts, loaded.experiment
    assert loaded.step == 1 and len(rows) == len(rollouts.text) == 32
    for i, row in enumerate(rows):
        n, problem = len(row["tokens"]), rollouts.problems[i]
        assert rollouts.response[i, :n].tolist() == row["tokens"] and not rollouts.response[i, n:].any()
        assert rollouts.mask[i].tolist() == [1.0] * n + [0.0] * (32 - n)
        assert (rollouts.text[i], rollouts.finish_reason[i]) == (row["response"], row["finish_reason"])
        assert rollouts.reward[i] == row["reward"] == rollouts.verdicts[i].reward
        assert rollouts.verdicts[i].message == row["verdict"]
        assert rollouts.first_error[i].tolist() == [row["first_error_start"], row["first_error_end"]]
        assert (problem.question, problem.answer) == (row["question"], row["answer"])
        assert problem.reference == experiment.task.solution(problem)
        assert rollouts.prompt[i, : rollouts.prompt_length[i]].tolist() == experiment.prompt_ids(problem)


@pytest.mark.slow
def test_the_step_and_its_parameters_are_chosen(finished, tmp_path):
    """By default the last file whose policy is known best, and the checkpoint nearest before it."""
    assert [parameters.checkpoint_before(finished, step) for step in (0, 1, 2, 9)] == [None, 1, 2, 4]
    assert parameters.load(load.load(finished, step=1).experiment, finished, 0).checkpoint == 0
    assert load.choose(finished).name == "step_00004.parquet"
    run = tmp_path / "run"
    for part in ("rollouts", "checkpoints"):
        shutil.copytree(finished / part, run / part)
    shutil.rmtree(run / "checkpoints" / "3")
    assert load.choose(run).name == "step_00003.parquet"
    shutil.rmtree(run / "checkpoints")
    assert load.choose(run).name == "step_00001.parquet"


@pytest.mark.slow
def test_a_run_for_more_devices_is_read_on_one(finished, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    config["mesh"] = {"data": -1, "fsdp": 64, "tensor": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load.read_config(tmp_path).mesh.model_dump() == {"data": 1, "fsdp": 1, "tensor": 1}
    config["steps"] = -1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json: steps = -1"):
        load.read_config(tmp_path)


# ---------------------------------------------------------------- files that are not what they should be


@pytest.fixture
def altered(finished, tmp_path):
    """Loads the rows of step 2 from a file elsewhere, after a change to them."""

    def load_altered(change, step=None):
        table = pa.Table.from_pylist(change(runs.rollouts(finished, 2)))
        pq.write_table(table, tmp_path / "rows.parquet")
        return load.load(tmp_path / "rows.parquet", workdir=finished, step=step)

    return load_altered


@pytest.mark.slow
@pytest.mark.parametrize(
    "column, value, message",
    [
        ("tokens", [10**6], "row 3: tokens: .*1000000; the run's policy has"),
        ("tokens", [], "row 3: tokens: 0 of them; expected 1 to rollout.response_length = 32"),
        ("student_logprobs", [0.0], "row 3: student_logprobs: 1 values for"),
        ("response", "other", "row 3: tokens: they decode to .*; the response is 'other'"),
        ("problem_id", "x-1", "row 3: problem_id: 'x-1' is not a training problem"),
        ("question", "1+1", "row 3: question: '1\\+1'; the run's task has"),
        ("reward", 0.5, "row 3: reward: 0.5; the task's verifier gives"),
        ("reward", float("nan"), "row 3: reward: nan; the task's verifier gives"),
    ],
)
def test_an_error_names_file_row_field_and_value(altered, column, value, message):
    def change(rows):
        rows[3][column] = value
        if column == "tokens":
            rows[3]["student_logprobs"] = [0.0] * len(value)
        return rows

    with pytest.raises(ValueError, match=f"rows.parquet {message}"):
        altered(change)


@pytest.mark.slow
def test_a_verdict_that_timed_out_is_kept(altered):
    """On another machine, or in a quiet hour, the verifier may come to another one."""

    def change(rows):
        rows[3] |= {"reward": 0.5, "verdict": "comparing the final answer timed out"}
        return rows

    rollouts = altered(change).rollouts
    assert rollouts.reward[3] == rollouts.verdicts[3].reward == 0.5 and "timed out" in rollouts.verdicts[3].message


@pytest.mark.slow
def test_an_error_names_the_file(finished, altered, tmp_path):
    with pytest.raises(ValueError, match="rows.parquet: 30 rows are not groups of rollout.group = 8"):
        altered(lambda rows: rows[:30])
    with pytest.raises(ValueError, match="rows.parquet: no column tokens"):
        altered(lambda rows: [{name: row[name] for name in row if name != "tokens"} for row in rows])
    with pytest.raises(ValueError, match="rows.parquet: null in column reward"):
        altered(lambda rows: [*rows[:-1], rows[-1] | {"reward": None}])
    with pytest.raises(ValueError, match="step = 2: .*rows.parquet is one file"):
        altered(lambda rows: rows, step=2)
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file; name the run"):
        load.load(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="step = 9: .*rollouts has 1, 2, 3, 4"):
        load.load(finished, step=9)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        load.load(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_token_that_decodes_to_nothing_is_a_token(altered):
    """The policy's vocabulary is rounded up beyond the tokenizer's."""

    def change(rows):
        row = next(row for row in rows if len(row["tokens"]) < 32)
        row["tokens"].append(127)
        row["student_logprobs"].append(-9.0)
        return rows

    assert altered(change).step == 1
