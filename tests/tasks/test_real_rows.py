"""All rows of real benchmarks: they load, render, and pass the gold self-test, or are listed here with the reason."""

import shutil

import pytest

from amrsd_jax.policy.tokenizer import chat_ids, load_tokenizer
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.tasks import data_report, registry
from amrsd_jax.tasks.selftest import selftest
from amrsd_jax.tasks.tools import documented, gold_calls

PROBLEM = dict(question="problem")
# name -> (task, train, test, its columns, rows of both)
SETS = {
    **{
        domain: ("choice", f"sciknoweval/{domain}/train.json", f"sciknoweval/{domain}/test.json", dict(question="prompt"), rows)
        for domain, rows in {"biology": (450, 50), "chemistry": (1890, 210), "physics": (720, 80), "material": (841, 94)}.items()
    },
    "tools": ("tools", "tooluse/train_rebuilt.json", "tooluse/test.json", dict(question="prompt"), (104, 68)),
    "gsm8k": ("mathematics", "math/gsm8k/train.jsonl", "math/gsm8k/test.jsonl", dict(answer_after="####"), (7473, 1319)),
    "math": (
        "mathematics", "math/math_train/train.jsonl", "math/math500/test.jsonl", PROBLEM | dict(unanswered="skip"), (7470, 500),
    ),
    "aime": ("mathematics", "math/aime24/test.jsonl", "math/aime25/test.jsonl", PROBLEM, (30, 30)),
    "amc, hmmt": ("mathematics", "math/amc23/test.jsonl", "math/hmmt_feb_2025/test.jsonl", PROBLEM, (40, 30)),
    "minerva": ("mathematics", "math/minerva_math/test.jsonl", "math/minerva_math/test.jsonl", PROBLEM, (272, 272)),
    "olympiad": (
        "mathematics", "math/olympiadbench/test.jsonl", "math/olympiadbench/test.jsonl", dict(answer="final_answer"), (675, 675),
    ),
    "dsr": (
        "mathematics", "math/dsr_sub/train.jsonl", "math/dsr_sub/train.jsonl",
        dict(question="prompt.0.content", answer="reward_model.ground_truth", unanswered="skip"), (1208, 1208),
    ),
    "mbpp": ("code", "code/mbpp/mbpp.jsonl", "code/humaneval/test.jsonl", dict(starter="prompt", seconds=30), (974, 164)),
}  # fmt: skip
UNANSWERED = {  # rows without a gold answer in their source: null or empty
    "math": ("train-887", "train-1010", "train-5329", "train-5331"),
    "dsr": ("train-266",),
}
REFUSED = {"dsr": ["train-1188"]}  # its source cuts the answer inside a fraction, so that no box can hold it
TWINS = {  # rows whose answer is another row's, written otherwise
    "gsm8k": {"train-7209"},
    "math": {"train-551", "train-1230", "train-4288", "train-4965"},
}


def make(shared_data, name):
    task, train, test, columns, _ = SETS[name]
    if task == "code" and not shutil.which("bwrap"):
        pytest.skip("no bubblewrap to run programs in")
    return registry.make(task, dict(train=str(shared_data / train), test=str(shared_data / test), **columns), seed=0)


def splits(name):
    """Train and test, or where both are the same file one of them."""
    _, train, test, *_ = SETS[name]
    return ("test",) if train == test else ("train", "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_gold_answer_scores_one_in_its_own_form(shared_data, name):
    task = make(shared_data, name)
    assert (task.size("train"), task.size("test")) == SETS[name][-1]
    assert task.skipped("train") == UNANSWERED.get(name, ())
    for split in splits(name):
        refused = [
            p.id
            for p in task.rows(split)
            if not (v := task.verify(p, task.gold_response(p))).correct or not v.format_ok
        ]
        assert refused == REFUSED.get(name, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_other_rows_answers_score_zero_on_every_row(shared_data, name):
    task = make(shared_data, name)
    faults = {fault.id: fault.reason for split in splits(name) for fault in selftest(task, split)}
    assert set(faults) == TWINS.get(name, set()) | set(REFUSED.get(name, []))


def test_published_graders_refuse_the_gold_answers_that_they_are_known_to_refuse(shared_data):
    task, refused = make(shared_data, "tools"), []
    for problem in task.rows("test"):
        assert task.verify(problem, task.gold_response(problem)).scores["compat"] in (0, 1)
        refused += [problem.id] * (task.verify(problem, task.gold_response(problem)).scores["compat"] == 0)
    assert refused == ["test-27", "test-34"]  # idx 4072 and 4079: a nested object, a name with brackets
    for name in ("biology", "chemistry", "physics", "material"):
        task = make(shared_data, name)
        assert all(
            task.verify(p, task.gold_response(p)).scores == {"lenient": 1, "compat": 1} for p in task.rows("test")
        )


def test_gold_calls_of_undocumented_tools_are_the_known_three(shared_data):
    rows = make(shared_data, "tools").rows("test")
    odd = [p.id for p in rows if {call.name for call in gold_calls(p.answer)} - set(documented(p.question))]
    assert odd == ["test-34", "test-61", "test-62"]  # idx 4079, 4106, 4107


@pytest.mark.slow
def test_every_row_renders_and_the_report_counts_what_is_known(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizer" / "qwen3")

    def report(name, most=None):
        task = make(shared_data, name)
        texts = templates(task.family)
        return data_report.report(
            task, lambda p: chat_ids(tokenizer, texts.question_prompt(p.question), enable_thinking=False), 2048, most
        )

    physics = report("physics", most=64)
    assert physics["overlap_with_train"]["test"]["stems"] == 7
    assert physics["splits"]["train"]["answers"]["usual"] == "B"
    assert physics["splits"]["test"]["answers"]["usual_share"] == 33 / 80
    assert report("material", most=16)["overlap_with_train"]["test"]["questions"] == 1
    tools = report("tools")
    assert tools["splits"]["test"]["prompt_tokens"]["measured"] == 68
    assert sum(tools["splits"]["test"]["prompt_tokens"]["histogram"]) == 68
    assert data_report.lines(physics)[0].startswith("data train: 720 rows")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_prompt_is_rendered_whole(shared_data, name):
    tokenizer = load_tokenizer(shared_data / "tokenizer" / "qwen3")
    task = make(shared_data, name)
    texts = templates(task.family)
    for split in splits(name):
        for problem in task.rows(split):
            ids = chat_ids(tokenizer, texts.question_prompt(problem.question), enable_thinking=False)
            text = tokenizer.decode(ids)
            assert problem.question.strip() in text and text.endswith("<think>\n\n</think>\n\n")
