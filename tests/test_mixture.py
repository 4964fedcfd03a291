"""A run on a mixture: shares, verifiers and prompts of each set, its metrics and files, and its exact resume."""

import json

import pyarrow.parquet as pq
import pytest

from amrsd_jax import report
from amrsd_jax.compare.load import load
from amrsd_jax.evaluate.files import markdown
from amrsd_jax.evaluate.saved import evaluate_saved
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks.rows import read_rows
from amrsd_jax.train import train
from tests import runs
from tests.mixtures import mixture_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(folder):
    """The workdir of an uninterrupted run of four steps, each of four prompts."""
    train(mixture_config(folder, **runs.EVERY_STEP), folder / "finished")
    return folder / "finished"


def test_every_step_has_each_set_in_its_share_judged_by_its_own_verifier(finished):
    for step, line in enumerate(runs.metrics(finished, "train"), start=1):
        rows = runs.rollouts(finished, step)
        assert (line["data/short/prompts"], line["data/even/prompts"]) == (3, 1)
        for name in ("short", "even"):
            own = [row for row in rows if row["data_set"] == name]
            assert len(own) == 8 * line[f"data/{name}/prompts"]
            assert {row["problem_id"].split("/")[0] for row in own} == {name}
            for metric, values in (
                ("reward", [row["reward"] for row in own]),
                ("response_length", [len(row["tokens"]) for row in own]),
            ):
                assert line[f"{metric}/{name}/mean"] == pytest.approx(sum(values) / len(own))
        assert all(row["reward"] == (len(row["response"]) % 2 == 0) for row in rows if row["data_set"] == "even")
        assert {row["verdict"] for row in rows if row["data_set"] == "short"} == {"short"}
        assert "reward/short/score_letters" in line and "reward/score_letters" not in line


def test_prompts_are_those_of_the_set(finished):
    loaded = load(finished, step=1)
    decode = loaded.experiment.tokenizer.decode
    for i, problem in enumerate(loaded.rollouts.problems):
        prompt = decode(loaded.rollouts.prompt[i, : loaded.rollouts.prompt_length[i]])
        assert ("Be even." in prompt) == (problem.data_set == "even")
        assert "boxed" not in prompt  # of mathematics, which the set's own template replaces


def test_held_out_accuracy_is_measured_of_each_set_and_of_all(finished, folder):
    for line in runs.metrics(finished, "eval"):
        counts = {name: line[f"eval/{name}n"] for name in ("", "even/", "short/")}
        assert counts == {"": 13, "even/": 4, "short/": 9}
        total = sum(counts[name] * line[f"eval/{name}sampled"] for name in ("even/", "short/"))
        assert line["eval/sampled"] == pytest.approx(total / 13)
    results = json.loads((finished / "results.json").read_text())["eval"]
    assert results["benchmarks"]["even"]["final"]["n"] == 4

    record = evaluate_saved(mixture_config(folder), str(finished), folder / "evaluated")
    final = {key.removeprefix("eval/"): value for key, value in line.items() if key.startswith("eval/")}
    assert record["test"]["metrics"] == final
    rows = [row.split(" | ")[:2] for row in markdown(record).splitlines()[2:5]]
    assert rows == [["| test", "13"], ["| test/even", "4"], ["| test/short", "9"]]
    answers = pq.read_table(folder / "evaluated" / "test.parquet").to_pylist()
    assert {(row["question_id"].split("/")[0], row["source"]) for row in answers} == {
        ("even", "few.jsonl"), ("short", "many.jsonl"),
    }  # fmt: skip


def test_the_report_tells_the_sets_apart(finished):
    page = report.write(finished).read_text()
    assert (
        '"data_set":"even"' in page.replace(": ", ":")
        and "Held-out accuracy by set" in page
        and "even, sampled" in page
    )


def test_a_killed_run_continues_to_the_bit(finished, folder, monkeypatch):
    config, workdir = mixture_config(folder, **runs.EVERY_STEP), folder / "killed"
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_metrics(patch, 3, runs.kill)
        train(config, workdir)
    train(config, workdir)
    runs.assert_same_run(finished, workdir)

    rows = folder / "many.jsonl"
    whole = rows.read_text()
    rows.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    read_rows.cache_clear()
    with pytest.raises(ConfigError, match=r"task\.short\.train\.rows: 9 there, 8 here"):
        train(config, workdir)
    rows.write_text(whole)
    read_rows.cache_clear()
