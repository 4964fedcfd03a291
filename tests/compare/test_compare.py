"""Compare, end to end: rollouts come back as they were, methods get what a training step of their own would have given."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amrsd_jax import credit
from amrsd_jax.checks import ConfigError
from amrsd_jax.compare import compare, frozen, measures, parameters, write
from amrsd_jax.compare.apply import Remembered, apply, score_student
from amrsd_jax.compare.gradient import policy_gradient
from amrsd_jax.compare.methods import configure, parse
from amrsd_jax.sampling import Request

pytestmark = pytest.mark.slow

VARIANTS = ("amrsd@shuffled_reflection", "amrsd@oracle_reflection")


def dump(workdir, step):
    return pq.read_table(workdir / "rollouts" / f"step_{step:05d}.parquet").to_pylist()


def by_name(comparison, name):
    return next(one for one in comparison.applied if one.name == name)


# ---------------------------------------------------------------- frozen rollouts


def test_rollouts_come_back_from_their_file(finished):
    ice, rows = frozen.load(finished, step=2), dump(finished, 2)
    assert ice.step == 1 and len(rows) == len(ice.rollouts.text) == 32
    for i, row in enumerate(rows):
        n = len(row["tokens"])
        assert ice.rollouts.response[i, :n].tolist() == row["tokens"] and not ice.rollouts.response[i, n:].any()
        assert ice.rollouts.mask[i].tolist() == [1.0] * n + [0.0] * (32 - n)
        assert ice.rollouts.text[i] == row["response"] and ice.rollouts.finish_reason[i] == row["finish_reason"]
        assert ice.rollouts.reward[i] == row["reward"] == ice.rollouts.verdicts[i].reward
        assert ice.rollouts.verdicts[i].message == row["verdict"]
        assert ice.rollouts.first_error[i].tolist() == [row["first_error_start"], row["first_error_end"]]
        problem, prompt = ice.rollouts.problems[i], ice.run.encode(ice.rollouts.problems[i])
        assert (problem.question, problem.answer) == (row["question"], row["answer"])
        assert problem.reference == ice.run.task.solution(problem)
        assert ice.rollouts.prompt[i, : ice.rollouts.prompt_length[i]].tolist() == prompt


def test_parameters_are_those_that_sampled(finished, comparison):
    """The nearest checkpoint before step 2's rollouts is that of step 1, and scores what the run recorded."""
    assert comparison.values["parameters"] == {"checkpoint": 1, "recorded_gap": pytest.approx(0, abs=1e-5)}
    assert [parameters.checkpoint_before(finished, step) for step in (0, 1, 2, 9)] == [None, 1, 2, 3]
    ice = frozen.load(finished, step=1)
    assert parameters.load(ice.run, finished, 0).checkpoint == 0


def test_by_default_the_last_dump_whose_policy_is_known(finished, tmp_path):
    assert frozen.choose(finished).name == "step_00003.parquet"
    run = tmp_path / "run"
    for part in ("rollouts", "checkpoints"):
        shutil.copytree(finished / part, run / part)
    shutil.rmtree(run / "checkpoints" / "2")
    assert frozen.choose(run).name == "step_00002.parquet"
    shutil.rmtree(run / "checkpoints")
    assert frozen.choose(run).name == "step_00001.parquet"


def test_a_file_elsewhere_needs_its_run(finished, tmp_path):
    file = tmp_path / "there" / "rows.parquet"
    file.parent.mkdir()
    shutil.copy(finished / "rollouts" / "step_00002.parquet", file)
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file; name the run"):
        frozen.load(file)
    assert frozen.load(file, workdir=finished).step == 1


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("tokens", [10**6], "row 3: tokens: .*1000000; the run's policy has"),
        ("tokens", [], "row 3: tokens: 0 of them; expected 1 to rollout.response_length = 32"),
        ("response", "other", "row 3: tokens: they read .*; its response is 'other'"),
        ("problem_id", "x-1", "row 3: problem_id: 'x-1' is no training problem"),
        ("question", "1+1", "row 3: question: '1\\+1'; the run's task has"),
        ("reward", 0.5, "row 3: reward: 0.5; the task's verifier gives"),
    ],
)
def test_errors_name_file_row_field_and_value(finished, tmp_path, column, value, told):
    rows = dump(finished, 2)
    rows[3][column] = value
    if column == "tokens":
        rows[3]["logp_student"] = [0.0] * len(value)
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(ValueError, match=f"rows.parquet {told}"):
        frozen.load(file, workdir=finished)


def test_a_token_that_reads_as_nothing_is_one_all_the_same(finished, tmp_path):
    """The policy's vocabulary is rounded up beyond the tokenizer's."""
    rows = dump(finished, 2)
    row = next(row for row in rows if len(row["tokens"]) < 32)
    row["tokens"].append(127)
    row["logp_student"].append(-9.0)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    frozen.load(tmp_path / "rows.parquet", workdir=finished)


def test_errors_of_whole_files(finished, tmp_path):
    rows, file = dump(finished, 2), tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows[:30]), file)
    with pytest.raises(ValueError, match="rows.parquet: 30 rows are not groups of rollout.group = 8"):
        frozen.load(file, workdir=finished)
    pq.write_table(pa.Table.from_pylist(rows).drop_columns(["tokens"]), file)
    with pytest.raises(ValueError, match="rows.parquet: no column tokens"):
        frozen.load(file, workdir=finished)
    with pytest.raises(ValueError, match="step = 9: .*rollouts has 1, 2, 3"):
        frozen.load(finished, step=9)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        frozen.load(tmp_path / "nowhere")


def test_a_run_for_more_devices_is_read_on_one(finished, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    config["mesh"] = {"data": -1, "fsdp": 64, "tensor": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert frozen.read_config(tmp_path).mesh.to_dict() == {"data": 1, "fsdp": 1, "tensor": 1}
    config["steps"] = -1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json: steps = -1"):
        frozen.read_config(tmp_path)


# ---------------------------------------------------------------- methods


def test_names_of_methods(finished):
    assert parse("all") == list(credit.RULES)
    assert parse("grpo, amrsd,grpo") == ["grpo", "amrsd"] and parse(["a@b"]) == ["a@b"]
    run = frozen.load(finished, step=1).run
    method = configure(run, "amrsd@oracle_reflection")
    assert method.make_contexts.source == method.config.credit.context == "oracle_reflection"
    assert configure(run, "rlsd").teacher.kind == "snapshot" and run.config.credit.rule == "amrsd"
    for name, told in (("grbo", "did you mean 'grpo'"), ("amrsd@x", "credit.context"), ("grpo@answer", "no teacher")):
        with pytest.raises(ConfigError, match=told):
            configure(run, name)
    with pytest.raises(ValueError, match="at least one"):
        compare(finished, " ,")


def test_the_runs_own_method_gets_what_the_run_gave_it(finished, comparison):
    """Contexts, scores and credit of AMR-SD are those that the training step wrote down."""
    own = by_name(comparison, "amrsd")
    for i, row in enumerate(dump(finished, 2)):
        n = len(row["tokens"])
        recorded = row["reflection_kind"], row["reflection_status"], row["reflection"]
        assert (own.contexts.kind[i], own.contexts.status[i], own.contexts.text[i]) == recorded
        assert own.credit.advantage[i] == pytest.approx(row["advantage"], abs=1e-6)
        np.testing.assert_allclose(own.credit.token_advantage[i, :n], row["token_advantage"], rtol=1e-4, atol=1e-5)
        if row["gap"] is not None:
            gap = own.scores.logp_teacher - own.scores.logp_student
            np.testing.assert_allclose(gap[i, :n], row["gap"], atol=1e-4)
    assert own.scores.scored.any()


def test_sharing_changes_nothing(finished, comparison):
    """A method alone has the credit that it has among all others."""
    ice = frozen.load(finished, step=2)
    params = parameters.load(ice.run, finished, ice.step)
    rollouts, entropy = score_student(ice, params)
    for name in ("masked_blame", "hybrid", "rlsd"):
        (alone,) = apply(ice.run, ice.step, rollouts, entropy, params, [name])
        among = by_name(comparison, name)
        assert alone.contexts.text == among.contexts.text
        np.testing.assert_allclose(alone.credit.token_advantage, among.credit.token_advantage, atol=1e-5)


def test_every_method_is_there_and_sees_what_it_needs(comparison):
    assert [one.name for one in comparison.applied] == [*credit.RULES, *VARIANTS]
    rollouts = comparison.rollouts
    for one in comparison.applied:
        needed = one.run.needs_context(one.credit.advantage, rollouts, 1)
        assert [status != "not_needed" for status in one.contexts.status] == needed.tolist()
        assert one.scores.scored.sum() == len(one.contexts.rows)
        assert not one.scores.logp_teacher[~one.scores.scored].any()
    grpo = by_name(comparison, "grpo")
    assert not measures.added(grpo.credit, rollouts).any()
    shuffled, own = by_name(comparison, VARIANTS[0]), by_name(comparison, "amrsd")
    assert set(shuffled.contexts.text) <= {"", *by_name(comparison, "prefix_credit").contexts.text, *own.contexts.text}


def test_a_sampler_that_remembers():
    asked = []

    def sample(requests):
        requests = list(requests)
        asked.extend(request.row for request in requests)
        for request in reversed(requests):
            yield Completion(request)

    remembered = Remembered(sample)
    requests = [Request([1, 2], row=row, tag=f"first {row}") for row in (3, 5)]
    assert [c.request.tag for c in remembered(requests)] == ["first 3", "first 5"]
    again = [Request([1, 2], row=5, tag="again"), Request([9], row=5, tag="other prompt")]
    assert [c.request.tag for c in remembered(again)] == ["again", "other prompt"]
    assert asked == [3, 5, 5] and list(remembered([])) == []


def Completion(request):
    from amrsd_jax.sampling import Completion

    none = np.zeros(0, np.float32)
    return Completion(request, 0, np.zeros(0, np.int32), none, none, "stop")


# ---------------------------------------------------------------- what is measured


def test_compare_json(comparison, tmp_path):
    write(comparison, tmp_path)
    values = json.loads((tmp_path / "compare.json").read_text())
    names = values["pairs"]["methods"]
    assert names == list(values["methods"])
    (note,) = values["notes"]
    assert "kept no teacher of kind ema, snapshot" in note
    about = values["rollouts"]
    assert about["rows"] == about["correct"] + about["failed"] == 32 and about["step"] == 1
    for name, method in values["methods"].items():
        ledger = method["ledger"]
        assert sum(ledger["status"].values()) == ledger["rows"] == 32, name
        assert ledger["with_context"] == ledger["status"].get("ok", 0)
        assert ledger["changed_tokens"] <= ledger["tokens"] == about["tokens"]
        shares = method["concentration"]["credit"]
        assert 0 < shares["top_1_percent"] <= shares["top_10_percent"] <= 1
        gap = method["gap"]
        scored = gap["correct"]["tokens"] + gap["failed"]["tokens"]
        assert (scored > 0) == (ledger["with_context"] > 0)
    leak = {name: method["leak"] for name, method in values["methods"].items()}
    assert leak["rlsd"]["states_answer"] == 1 and leak["amrsd"]["states_answer"] == 0
    assert leak["hybrid"]["states_answer"] == 1 and leak["hybrid"]["reference_trigrams"] > 0.9
    found = {name: method["first_error"]["token"] for name, method in values["methods"].items()}
    assert found["grpo"]["auroc"] == 0.5 and found["grpo"]["rows_told"] == 0
    assert found["grpo"]["precision_at_1"] == pytest.approx(found["grpo"]["random"]["precision_at_1"])
    step = values["methods"]["oracle_first_error"]["first_error"]["step"]
    assert step["auroc_told"] == 1 and step["precision_at_1_told"] == 1
    for table in (values["pairs"]["gradient_cosine"], values["pairs"]["rank_correlation"]["credit"]):
        assert all(table[i][i] == 1 for i in range(len(names)))
    i, j = names.index("drop_failures"), names.index("scale_failures")
    assert values["pairs"]["rank_correlation"]["added"][i][j] == pytest.approx(1, abs=1e-3)


def test_gradients_are_linear_in_credit(finished, comparison):
    """At the frozen parameters the ratio is 1 and nothing is clipped: half the credit is half the gradient."""
    ice = frozen.load(finished, step=2)
    params = parameters.load(ice.run, finished, ice.step).policy
    amrsd = by_name(comparison, "amrsd")
    half = dataclasses.replace(amrsd.assigned, token_advantage=amrsd.assigned.token_advantage / 2)
    methods = (amrsd, dataclasses.replace(amrsd, assigned=half))
    whole, part = (policy_gradient(params, comparison.rollouts, method) for method in methods)
    assert whole.shape == (sum(leaf.size for leaf in jax.tree.leaves(params)),) and np.linalg.norm(whole) > 0
    np.testing.assert_allclose(part, whole / 2, atol=1e-5 * np.abs(whole).max())


def test_the_answer_is_the_last_line(finished, comparison):
    rollouts, tokenizer = comparison.rollouts, comparison.applied[0].run.tokenizer
    answers = measures.answer_tokens(rollouts, tokenizer)
    for i, text in enumerate(rollouts.text):
        if rollouts.finish_reason[i] == "stop":
            said = tokenizer.decode(rollouts.response[i, answers[i]].tolist())
            assert said == text.rstrip().rpartition("\n")[2]
        else:
            assert not answers[i].any()


def test_notes_say_which_parameters_were_not_the_runs_own(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "2")
    notes = compare(run, "rlsd,grpo", step=3).values["notes"]
    assert "sampled after 2 training steps; the nearest parameters before are those of step 1" in notes[0]
    assert "kept no teacher of kind snapshot" in notes[1]


def test_command_line(finished, tmp_path):
    """A process of its own: commands share names of flags."""
    command = [sys.executable, "-m", "amrsd_jax.compare", f"--rollouts={finished}", f"--out={tmp_path}"]
    done = subprocess.run([*command, "--methods=grpo,amrsd"], capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == str(tmp_path / "compare.html"), done.stderr[-2000:]
    wrong = subprocess.run([*command, "--methods=grbo"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "compare error: credit.rule = 'grbo'" in wrong.stderr
