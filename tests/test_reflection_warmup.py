"""The reflection warm-up on two-digit addition: a model learns to write reflections, alike for every method, and only once."""

import dataclasses
import json
import os
import signal
from collections import Counter

import jax
import numpy as np
import pytest

from amrsd_jax import reflection_warmup, start
from amrsd_jax.experiment import make_experiment
from amrsd_jax.policy import lora
from amrsd_jax.preflight import check_prompts
from amrsd_jax.records import Verdict
from amrsd_jax.reflection.reflections import reflection_request
from amrsd_jax.rollout import generate
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import claim
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import adapted_params, initial_params
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from tests import runs
from tests.tiny import tiny_config, tiny_rollouts


def config(rule="amrsd", *, attempts=16, **fields):
    """A random model, and a reflection warm-up of a few updates."""
    fields = {"reflection__warmup__rows": 1, "warmup__documents": 0, "steps": 1, "evaluation__problems": 4} | fields
    return tiny_config(rule, reflection__warmup__attempts=attempts, **fields)


def experiment(workdir, *args, **fields):
    return make_experiment(validate(config(*args, **fields)), workdir)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------- documents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("tiny"), reflection__warmup__rehearsal=1.0)


def attempts_at(tiny, *texts):
    """A group of attempts at one problem: its solution, then the given ones, then the solution again."""
    problem = tiny.task.problem("train", 0)
    texts = (tiny.task.solution(problem), *texts)
    texts += texts[:1] * (8 - len(texts))
    verdicts = tuple(tiny.task.verify(problem, text) for text in texts)
    record = dict(text=texts, problems=(problem,) * 8, verdicts=verdicts, reward=np.array([v.reward for v in verdicts]))
    return tiny_rollouts([True] * 8, length=3, **record)


@pytest.mark.parametrize("open_tag", [False, True])
def test_the_prompt_is_that_of_training_and_the_completion_the_task_s_line(tmp_path, open_tag):
    made = experiment(tmp_path, reflection__open_tag=open_tag, reflection__warmup__rehearsal=0.0)
    problem = made.task.problem("train", 0)
    truth = made.task.solution(problem).split("\n")
    attempts = attempts_at(made, "no line")
    documents, left_out = reflection_warmup.make_documents(made, attempts)
    assert not left_out and [len(documents[kind]) for kind in ("hint", "critique", "answer")] == [4, 4, 0]
    critique = documents["critique"][0]
    assert critique.prompt == reflection_request(made.context_settings, attempts, 1, 1).prompt
    assert made.tokenizer.decode(critique.prompt).count(truth[0]) == 1  # a correct peer, as in training
    opening = "" if open_tag else "<critique>"
    assert made.tokenizer.decode(critique.completion) == f"{opening}{truth[0]}</critique><|im_end|>"
    assert made.tokenizer.decode(critique.prompt).endswith("<critique>") == open_tag


@pytest.mark.parametrize("wrong, counts", [(0, [8, 0]), (1, [4, 4]), (4, [4, 4]), (7, [4, 4])])
def test_hints_and_critiques_are_equally_many_where_both_can_be_written(tiny, wrong, counts):
    documents, _ = reflection_warmup.make_documents(tiny, attempts_at(tiny, *["no line"] * wrong))
    assert [len(documents[kind]) for kind in ("hint", "critique")] == counts


def test_what_training_could_not_use_is_left_out(tiny):
    problem = tiny.task.problem("train", 0)
    *lines, answer = tiny.task.solution(problem).split("\n")
    wrong_at_the_end, beyond_it = "\n".join([*lines, "#### x"]), "\n".join([*lines, answer, "more", "#### x"])
    assert not tiny.task.verify(problem, beyond_it).correct
    _, left_out = reflection_warmup.make_documents(tiny, attempts_at(tiny, wrong_at_the_end, beyond_it))
    assert left_out == {"none": 2}


def test_unusable_texts_are_counted_by_their_reason(tiny, monkeypatch):
    """A task's text that would be unusable in training, e.g. because it states the answer, teaches nothing."""
    problem = tiny.task.problem("train", 0)
    texts = iter([f"it is {problem.answer}", " ", "a" * 15, "a" * 14, "a" * 13, None, "a</hint>b", "a", *"abcde"])
    monkeypatch.setattr(type(tiny.task), "write_reflection", lambda self, *_: next(texts))
    documents, left_out = reflection_warmup.make_documents(tiny, attempts_at(tiny))
    assert left_out == {"leak": 1, "empty": 1, "truncated": 2, "none": 1}
    written = [tiny.tokenizer.decode(document.completion) for document in documents["hint"]]
    assert written == [f"<hint>{text}</hint><|im_end|>" for text in ("a" * 13, "a", "a", *"abcde")]
    monkeypatch.setattr(type(tiny.task), "write_reflection", lambda self, *_: None)
    with pytest.raises(ConfigError, match="reflection.warmup.attempts = 16: none of 8 attempts .* 8 x 'none'"):
        reflection_warmup.make_documents(tiny, attempts_at(tiny))


def test_rehearsed_attempts_are_what_was_sampled(tiny):
    """Right or wrong, whole or truncated."""
    attempts = tiny_rollouts(
        [True, False] * 4, length=3, prompt=np.full((8, 4), 7, np.int32), prompt_length=np.full(8, 2, np.int32),
        response=np.arange(24, dtype=np.int32).reshape(8, 3), mask=np.tri(8, 3, 0, np.float32),
        problems=(tiny.task.problem("train", 0),) * 8, verdicts=(Verdict(1.0, "", None, True),) * 8,
    )  # fmt: skip
    answers = reflection_warmup.make_documents(tiny, attempts)[0]["answer"]
    assert all(document.rehearsed for document in answers) and [document.prompt for document in answers] == [[7, 7]] * 8
    assert [document.completion for document in answers[:4]] == [[0], [3, 4], [6, 7, 8], [9, 10, 11]]


def test_solutions_are_those_of_the_first_training_problems(tmp_path, monkeypatch):
    """A problem without one, and one whose solution is as long as a response may be, is left out and counted."""
    made = experiment(tmp_path, reflection__warmup__solutions=4)
    problems = [made.task.problem("train", i) for i in range(4)]
    longest = "1" * (made.config.rollout.response_length - 1)  # a token each
    references = [problems[0].reference, None, longest, longest + "1"]
    changed = [dataclasses.replace(problem, reference=text) for problem, text in zip(problems, references, strict=True)]
    monkeypatch.setattr(type(made.task), "problem", lambda self, split, index: changed[index])
    documents, left_out = reflection_warmup.solution_documents(made)
    assert left_out == {"no_solution": 1, "long_solution": 1}
    assert [document.prompt for document in documents] == [made.prompt_ids(problems[i]) for i in (0, 2)]
    assert [made.tokenizer.decode(document.completion) for document in documents] == [
        f"{text}<|im_end|>" for text in (problems[0].reference, longest)
    ]
    assert not any(document.rehearsed for document in documents)


# ---------------------------------------------------------------- refused before any compute


def thoughtful(tmp_path):
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}{% if think is not false %}<think>\n{% endif %}")
    return dict(chat_template__path=str(path))


def reflecting_without_thought(tmp_path):
    fields = dict(reflection__warmup__solutions=4, reflection__chat_template=dict(think=False))
    return thoughtful(tmp_path) | fields


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(reflection__prompt_length=9), "reflection.prompt_length = 9: .*hint.*expected more"),
        (thoughtful, "reflection.warmup.attempts = 16: .*inside a thought"),
        (reflecting_without_thought, "reflection.warmup.solutions = 4: .*inside a thought"),
        (dict(reflection__warmup__solutions=4, attempts=0), "reflection.warmup.solutions = 4: expected 0 without"),
        (dict(mesh__data=8), "reflection.warmup.rows = 1 does not divide over 8 devices"),
        (
            dict(reflection__warmup__solutions=4, reflection__warmup__rows=4),
            "solutions = 4: they fill . rows; expected",
        ),
        (dict(architecture__max_positions=100), "reflection.prompt_length .reflection.tokens = 96 . 16 = 112"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tmp_path, fields, message):
    fields = fields(tmp_path) if callable(fields) else fields
    with pytest.raises(ValueError, match=message.replace(" .reflection", r" \+ reflection").replace("96 .", r"96 \+")):
        check_prompts(experiment(tmp_path, "grpo", **fields))


def test_a_task_without_solutions_is_refused(tmp_path, monkeypatch):
    made = experiment(tmp_path, reflection__warmup__solutions=4)
    problem = dataclasses.replace(made.task.problem("train", 0), reference=None)
    monkeypatch.setattr(type(made.task), "problem", lambda self, split, index: problem)
    with pytest.raises(
        ValueError, match="reflection.warmup.solutions = 4: they fill 0 rows, 4 left out as 'no_solution'"
    ):
        check_prompts(made)


def test_a_task_that_writes_no_reflections_is_refused(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{i} + {i}", "answer": str(2 * i)}) + "\n" for i in range(4)))
    embedded = experiment(tmp_path)
    embedded.tokenizer.save_pretrained(tmp_path / "tokenizer_folder")
    fields = dict(task__name="mathematics", task__args=dict(train=str(rows), test=str(rows)))
    fields |= dict(
        tokenizer=str(tmp_path / "tokenizer_folder"),
        rollout__prompt_length=200,
        reflection__context_length=400,
        reflection__prompt_length=400,
    )
    with pytest.raises(ValueError, match="reflection.warmup.attempts = 16: task 'mathematics' writes no reflections"):
        check_prompts(experiment(tmp_path / "none", **fields))


# ---------------------------------------------------------------- the whole phase


def usable(made, params):
    contexts = generate(made, made.sampler_params(params), None, 0, 0, Clock()).contexts
    return Counter(contexts.status)["ok"] / len(contexts.status)


@pytest.mark.slow
def test_a_model_learns_to_write_usable_reflections_once(tmp_path, monkeypatch):
    fields = dict(credit__exact_savings=False, reflection__warmup__rows=2, reflection__warmup__learning_rate=1e-2)
    made = experiment(tmp_path, attempts=128, reflection__warmup__rehearsal=0.5, **fields)
    assert usable(made, adapted_params(made, tmp_path, Clock())) < 0.2
    params = initial_params(made, tmp_path, Clock())
    assert usable(made, params) > 0.8
    record = json.loads((tmp_path / "reflection_warmup.json").read_text())
    assert record["attempts"] == 128 and np.mean(record["losses"][-20:]) < record["losses"][0] * 0.8
    assert record["documents"]["hint"] + record["documents"]["critique"] + sum(record["left_out"].values()) == 128
    assert 40 < record["documents"]["answer"] < 88  # half of them
    monkeypatch.setattr(reflection_warmup, "warm_up", None)  # a second one would fail
    assert_same(params, initial_params(made, tmp_path, Clock()))


@pytest.mark.slow
def test_methods_start_from_the_same_parameters(tmp_path):
    params = [initial_params(experiment(tmp_path / rule, rule), tmp_path / rule, Clock()) for rule in ("grpo", "amrsd")]
    assert_same(*params)


@pytest.mark.slow
def test_a_run_continues_with_its_adapters_alone(tmp_path, monkeypatch):
    """The base model is untouched, and a run that is extended makes no second warm-up."""
    fields = dict(lora__rank=4, reflection__warmup__learning_rate=1e-2, loss__kl=0.1, checkpoint__every=1)
    train(config(**fields), tmp_path)
    made = experiment(tmp_path, **fields)
    before, after = adapted_params(made, tmp_path, Clock()), initial_params(made, tmp_path, Clock())
    assert_same(lora.without(before), lora.without(after))
    assert np.any(after["layers"]["query"]["lora_b"]) and not np.any(before["layers"]["query"]["lora_b"])
    saved = sum(path.stat().st_size for path in (tmp_path / "reflection_warmup").rglob("*") if path.is_file())
    assert saved < sum(a.nbytes for a in jax.tree.leaves(after)) / 2
    monkeypatch.setattr(reflection_warmup, "warm_up", None)
    assert train(config(**fields | {"steps": 2}), tmp_path)["steps"] == 2


@pytest.mark.slow
def test_a_signal_ends_it_and_the_same_command_makes_it_anew(tmp_path, monkeypatch):
    def track(batches, *_):
        for number, batch in enumerate(batches):
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(start, "track", track)
        assert train(config("grpo"), tmp_path / "run")["steps"] == 0
    assert not (tmp_path / "run" / "reflection_warmup").exists()
    for name in ("run", "undisturbed"):
        assert train(config("grpo"), tmp_path / name)["steps"] == 1
    runs.assert_same_state(tmp_path / "run", tmp_path / "undisturbed", 1)


@pytest.mark.slow
def test_a_phase_that_is_not_finite_is_refused_and_leaves_a_workdir_for_the_corrected_command(tmp_path):
    with pytest.raises(ConfigError, match=r"reflection.warmup.learning_rate = 1e\+30: the loss goes from"):
        train(config("grpo", reflection__warmup__learning_rate=1e30), tmp_path)
    assert not list(tmp_path.glob("reflection_warmup*"))
    assert not claim(tmp_path, validate(config("grpo")))


@pytest.mark.slow
def test_documents_that_fill_no_update_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="reflection.warmup.rows = 64: all documents fill only"):
        initial_params(experiment(tmp_path, reflection__warmup__rows=64), tmp_path, Clock())
