"""Benchmarks of a config, their requests, answers and metrics, with a scripted sampler."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from amrsd_jax.evaluate import benchmarks
from amrsd_jax.evaluate.answers import ask, requests
from amrsd_jax.evaluate.estimators import wilson
from amrsd_jax.evaluate.files import markdown, write_answers
from amrsd_jax.evaluate.measure import ballot, measure
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Completion, Prompts
from amrsd_jax.tasks import registry
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

ROWS = [{"question": f"Which?\nA: {i}\nB: {i + 1}", "answer": "AB"[i % 2]} for i in range(3)]


@pytest.fixture
def rows(tmp_path):
    """Three rows of multiple choice."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path / "rows.jsonl")


def choice_benchmark(rows, **settings):
    """The benchmark `letters`, of rows, and its prompts."""
    config = tiny_config()
    config.evaluation.benchmarks = {"letters": {"task": {"name": "choice", "args": {"test": rows}}, **settings}}
    config = validate(config)
    letters = benchmarks(config, registry.make(config.task.name, dict(config.task.args), 0))[1]
    problems = tuple(letters.task.problem("test", i) for i in range(3))
    return letters, Prompts(problems, tuple((i + 1,) for i in range(3)))


def scripted(tokenizer, said):
    """A sampler that finishes requests in reverse; `said` maps (mode, question, sample) to text."""

    def sample(stream):
        for request in reversed(list(stream)):
            question, first = request.tag
            for index in range(request.count):
                greedy = request.greedy and index == request.count - 1
                tokens = np.array(tokenizer.encode(said("greedy" if greedy else "sampled", question, first + index)))
                zeros = np.zeros(len(tokens), np.float32)
                yield Completion(request, index, tokens, zeros, "length" if question == 2 else "stop")

    return sample


def test_a_benchmark_has_what_it_names_and_the_rest_as_the_run(rows):
    letters, _ = choice_benchmark(rows, samples=5, temperature=0.6, problems=0)
    assert (letters.name, letters.prefix, letters.samples, letters.temperature) == ("letters", "letters/", 5, 0.6)
    assert (letters.problems, letters.top_p, letters.every, letters.task.family) == (0, 1.0, 2, "choice")
    assert "option" in letters.texts[""].system  # the prompts of its own family


def test_a_validation_split_is_a_benchmark(tmp_path):
    lines = [json.dumps({"question": f"{i}+1", "answer": i + 1}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    config = tiny_config(warmup__documents=0, tokenizer="unused")
    config.task.name, config.task.args = "mathematics", dict.fromkeys(("train", "test"), str(tmp_path / "a.jsonl"))
    for share, names in ((0.0, ["test"]), (0.3, ["test", "validation"])):
        config.task.args.validation = share
        splits = benchmarks(validate(config), registry.make("mathematics", dict(config.task.args), 0))
        assert [(benchmark.name, benchmark.split) for benchmark in splits] == [(name, name) for name in names]


def test_requests_cut_samples_into_groups_and_number_rows_by_question(rows):
    letters, prompts = choice_benchmark(rows, samples=5, temperature=0.6, top_p=0.95)
    stream = list(requests(letters, prompts, group=2))
    assert [(r.row, r.count, r.greedy) for r in stream] == [
        (5 * question + first, 2, first == 4) for first in (0, 2, 4) for question in range(3)
    ]
    assert {(r.temperature, r.top_p) for r in stream} == {(0.6, 0.95)}
    numbers = [r.row + j for r in stream for j in range(r.count - r.greedy)]
    assert sorted(numbers) == list(range(15))
    letters, prompts = choice_benchmark(rows, samples=8)
    counts = [r.count for r in requests(letters, prompts, group=8)]
    assert counts == [5, 5, 5, 4, 4, 4]  # not 8 and 1: requests for one answer are not prefilled with others
    alone = [r for r in requests(letters, prompts, group=1) if r.greedy]  # where no other answer has room beside it
    assert [(r.tag, r.count) for r in alone] == [((i, 8), 1) for i in range(3)]


def test_metrics_of_several_samples_by_hand(rows, tmp_path):
    """Gold A, B, A. Right samples of 4: three, one, none; the second's vote is tied, the third's never readable."""
    letters, prompts = choice_benchmark(rows, samples=4)
    tokenizer = embedded_tokenizer([])
    texts = {0: "AAAB", 1: "BAA ", 2: "    "}

    def said(mode, question, sample):
        letter = ROWS[question]["answer"] if mode == "greedy" else texts[question][sample].strip()
        return f"<answer>{letter}</answer>" if letter else "The answer is (B)" if question == 1 else "?"

    answers = ask(letters, prompts, tokenizer, scripted(tokenizer, said), group=3)
    assert [(a.mode, a.question, a.sample) for a in answers[:5]] == [
        *(("sampled", 0, j) for j in range(4)), ("sampled", 1, 0),
    ]  # fmt: skip
    metrics = measure(answers, lambda problem: "choice", np.random.default_rng(0))
    assert (metrics["n"], metrics["samples"], metrics["greedy"]) == (3, 4, 1.0)
    assert metrics["sampled"] == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert metrics["pass_at_2"] == pytest.approx((1 + 3 / 6 + 0) / 3) and metrics["pass_at_4"] == pytest.approx(2 / 3)
    assert metrics["maj_at_4"] == pytest.approx((1 + 0 + 0) / 3)  # A, A beat B; nothing can be read of the third
    assert metrics["score_lenient"] == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert metrics["truncated"] == pytest.approx(1 / 3) and metrics["format"] == pytest.approx(7 / 12)
    assert metrics["timeouts"] == 0 and "pass_at_1" not in metrics
    assert metrics["sampled_low"] <= metrics["sampled"] <= metrics["sampled_high"]
    assert (metrics["greedy_low"], metrics["greedy_high"]) == wilson(3, 3)
    assert (metrics["pass_at_4_low"], metrics["pass_at_4_high"]) == wilson(2, 3)  # 0 or 1 of each question

    write_answers(tmp_path / "a.parquet", letters, answers)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(table) == 15 and table[3]["text"] == "<answer>B</answer>"
    assert {row["benchmark"] for row in table} == {"letters"} and {row["source"] for row in table} == {rows}
    assert (table[3]["question_id"], table[3]["gold"], table[3]["parsed"], table[3]["reward"]) == (
        "rows-1",
        "A",
        "B",
        0,
    )
    assert table[7]["parsed"] is None and dict(table[7]["scores"]) == {"lenient": 1.0, "compat": 0.0}
    assert table[8]["finish_reason"] == "length" and table[-1]["mode"] == "greedy"

    settings = {"checkpoint": "X", "temperature": 0.6, "top_p": 0.95, "top_k": 0, "response_length": 9, "seed": 0}
    text = markdown({"letters": {"settings": settings, "metrics": metrics | {"too_long": 2}}})
    header, _, line, *rest = text.splitlines()
    assert header == (
        "| benchmark | questions | k | avg@k | pass@2 | pass@4 | maj@k | greedy | tokens | format | timeouts | truncated "
        "| compat | lenient |"
    )
    assert line.startswith("| letters | 3 | 4 | 0.333 (") and line.count("|") == header.count("|")
    assert "2 questions left out" in rest[-1]


def test_one_sample_is_counted_as_before():
    """Sampled and greedy apart, with Wilson's intervals; right when greedy, and when sampled for the first problem only."""
    config = validate(tiny_config())
    task, tokenizer = registry.make("addition", {"digits": 2}, seed=0), embedded_tokenizer(["####"])
    (own,) = benchmarks(config, task)
    problems = tuple(task.problem("test", i) for i in range(4))

    def said(mode, question, sample):
        return "#### " + (problems[question].answer if mode == "greedy" or question == 0 else "no")

    answers = ask(own, Prompts(problems, ((1,),) * 4), tokenizer, scripted(tokenizer, said), group=8)
    metrics = measure(answers, task.family_of, np.random.default_rng(0))
    assert own.prefix == "" and metrics["sampled"] == 0.25 and metrics["greedy"] == 1.0 and metrics["n"] == 4
    assert (metrics["sampled_low"], metrics["sampled_high"]) == wilson(1, 4)
    assert not any(name.startswith(("pass_at", "maj_at")) for name in metrics)


def test_numbers_vote_by_value_in_mathematics_alone():
    assert ballot("0.50", "mathematics") == ballot(r"\frac{1}{2}", "mathematics") == "1/2"
    assert ballot("x + 1", "mathematics") == ballot("x+1", "mathematics") != ballot("1+x", "mathematics")
    assert ballot("07", "chain") == "07" and ballot(None, "mathematics") is None
