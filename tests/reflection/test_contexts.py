"""Contexts from end to end, with a sampler that answers from a list: each source, what it asks for, and unusable texts."""

import dataclasses

import numpy as np
import pytest

from amrsd_jax import credit
from amrsd_jax.config import ReflectionConfig
from amrsd_jax.policy.tokenizer import chat_ids, embedded_tokenizer
from amrsd_jax.records import Completion, Verdict
from amrsd_jax.reflection.contexts import make_contexts
from amrsd_jax.reflection.prompts import templates, vocabulary_words
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.reflection.sources import Generators
from amrsd_jax.tasks.registry import make
from tests.tiny import SUM, tiny_rollouts

TEXTS = templates("chain")
TOKENIZER = embedded_tokenizer(vocabulary_words(TEXTS))
TASK = make("addition", {"digits": 1}, seed=0)
RIGHT, WRONG = "5+7+0=12\n#### 12", "5+7+0=13\n#### 13"


def rollouts(*correct, **fields):
    text = tuple(RIGHT if right else WRONG for right in correct)
    return tiny_rollouts(correct, **{"text": text} | fields)


def answered(record, *parsed):
    """The same rollouts with these answers."""
    verdicts = [dataclasses.replace(one, parsed=answer) for one, answer in zip(record.verdicts, parsed, strict=True)]
    return dataclasses.replace(record, verdicts=tuple(verdicts))


class Sampler:
    """Answers row r with answers[r]; an answer that ends in "..." was cut by length. Completes in reverse order."""

    def __init__(self, *answers):
        self.answers, self.requests = answers, {}

    def __call__(self, requests):
        for request in reversed(list(requests)):
            self.requests[request.row] = request
            text = self.answers[request.row]
            tokens = np.array([*TOKENIZER.encode(text.removesuffix("...")), TOKENIZER.eos_token_id])
            finish_reason = "length" if text.endswith("...") else "stop"
            yield Completion(request, 0, tokens, np.zeros(len(tokens), np.float32), finish_reason)


def settings_of(group=2, **fields):
    config = ReflectionConfig(**dict(prompt_length=200, context_length=60) | fields)
    return ContextSettings(config, TASK, TOKENIZER, {"": TEXTS}, {}, {}, group)


def contexts_of(record, *answers, source="self_reflection", needs=None, negatives="", count=0, critic=None, **fields):
    """The contexts of the rows in `needs`, by default of all, and the sampler that was asked for reflections."""
    settings, sampler = settings_of(**fields), Sampler(*answers)
    needs_teacher = np.ones(len(record.text), bool) if needs is None else np.array(needs, bool)
    generators = Generators(Reflections(settings, sampler), critic)
    return make_contexts(source, negatives, count, settings, record, needs_teacher, generators), sampler


def prompt(contexts, i):
    return contexts.prompt[i, : contexts.prompt_length[i]].tolist()


# ---------------------------------------------------------------- the policy's reflections


def test_usable_reflections_become_contexts_and_the_others_have_a_reason():
    answers = "<hint>5+7</hint>", "<critique>carry</critique>", "<hint>carry...", "<critique>12</critique>", ""
    record = rollouts(True, False, True, False, False)
    contexts, sampler = contexts_of(record, *answers, needs=[1, 1, 1, 1, 0], group=5)
    assert contexts.kind == ("hint", "critique", "hint", "critique", "")
    assert contexts.status == ("ok", "ok", "truncated", "leak", "not_needed")
    assert contexts.text == ("5+7", "carry", "<hint>carry", "12", "")  # unusable ones as they were written
    assert contexts.rows.tolist() == [0, 1] and contexts.prompt.shape == (2, 60)
    for i, text in enumerate(("5+7", "carry")):
        assert prompt(contexts, i) == chat_ids(TOKENIZER, TEXTS.teacher_prompt("5+7", text))

        assert not contexts.prompt[i, contexts.prompt_length[i] :].any()
    assert sorted(sampler.requests) == [0, 1, 2, 3]
    assert {request.temperature for request in sampler.requests.values()} == {0.7}


def test_a_policy_that_writes_no_tags_gets_the_first_and_the_end_is_the_last():
    answers = "Carry", "Mind the carry. Then ad...", "Carry...", "Twelve is 12", "</hint>"
    record = rollouts(True, False, True, False, True)
    contexts, sampler = contexts_of(record, *answers, group=5, open_tag=True, keep_sentences=True, prompt_length=110)
    assert contexts.status == ("ok", "ok", "truncated", "leak", "empty")
    assert contexts.text[:2] == ("Carry", "Mind the carry.")
    for row, kind in enumerate(("hint", "critique", "hint")):
        request, tag = sampler.requests[row].prompt, TOKENIZER.encode(f"<{kind}>")
        assert request[-len(tag) :] == tag and len(request) <= 110
    assert contexts_of(record, *answers, group=5, open_tag=True)[0].status[1] == "truncated"


def test_the_prompt_shows_the_attempt_its_verdict_and_a_correct_sibling():
    _, sampler = contexts_of(rollouts(True, False), "", "")
    hint = TEXTS.reflection_prompt("hint", "5+7", RIGHT, "message", None, None)
    critique = TEXTS.reflection_prompt("critique", "5+7", WRONG, "message", RIGHT, None)
    assert sampler.requests[0].prompt == chat_ids(TOKENIZER, hint)
    assert sampler.requests[1].prompt == chat_ids(TOKENIZER, critique)


def test_a_long_prompt_first_loses_the_peer_then_the_end_of_the_attempt():
    for attempt in (WRONG, WRONG[:-1]):
        messages = TEXTS.reflection_prompt("critique", "5+7", attempt, "message", None, None)
        expected = chat_ids(TOKENIZER, messages)
        _, sampler = contexts_of(rollouts(True, False), "", "", needs=[0, 1], prompt_length=len(expected))
        assert sampler.requests[1].prompt == expected


@pytest.mark.parametrize("limit, requested", [("prompt_length", 0), ("context_length", 2)])
def test_without_room_a_row_has_no_context(limit, requested):
    answers = "<hint>5+7</hint>", "<critique>carry</critique>"
    contexts, sampler = contexts_of(rollouts(True, False), *answers, **{limit: 5})
    assert contexts.status == ("no_room", "no_room")
    assert contexts.rows.size == 0 and contexts.prompt.shape[0] == 0
    assert len(sampler.requests) == requested


def test_a_reflection_is_shortened_to_fit_the_context():
    least = len(chat_ids(TOKENIZER, TEXTS.teacher_prompt("5+7", "")))
    contexts, _ = contexts_of(rollouts(True), "<hint>7+5</hint>", group=1, context_length=least + 2)
    assert contexts.prompt.tolist() == [chat_ids(TOKENIZER, TEXTS.teacher_prompt("5+7", "7+"))]
    assert contexts.text == ("7+5",) and contexts.cut == (0,)
    assert contexts_of(rollouts(True), "<hint>7+5</hint>", group=1, context_length=least + 3)[0].cut == ()


def test_the_reference_is_shown_to_the_reflection_and_never_to_the_teacher():
    contexts, sampler = contexts_of(rollouts(False, False), *["<critique>carry</critique>"] * 2, reference=True)
    assert "worked" in TOKENIZER.decode(sampler.requests[0].prompt)
    assert "worked" not in TOKENIZER.decode(contexts.prompt[0])


def test_where_no_row_needs_a_teacher_nothing_is_sampled():
    contexts, sampler = contexts_of(rollouts(True, False), needs=[0, 0])
    assert contexts.status == ("not_needed", "not_needed") and not sampler.requests
    assert contexts.prompt.shape == (0, 60)


def test_reflections_sampled_beside_the_rollouts_are_not_sampled_again():
    """Requested as soon as the second group is verified, by its place in the batch."""
    record, sampler = rollouts(True, False, False, True), Sampler(*[f"<hint>{i}</hint>" for i in range(4)])
    reflections = Reflections(settings_of(), sampler)
    group = rollouts(False, True)
    requests = list(reflections.requests(group, [1], range(2, 4)))
    assert [request.row for request in requests] == [3]
    assert list(reflections.requests(group, [1], range(2, 4))) == []
    for completion in Sampler("", "", "", "<hint>early</hint>")(requests):
        reflections.add(completion)
    completions = reflections.get(record, [0, 3])
    assert sorted(sampler.requests) == [0] and sorted(completions) == [0, 3]
    assert "early" in TOKENIZER.decode(completions[3].tokens)
    assert requests[0].prompt == next(Reflections(settings_of(), sampler).requests(record, [3], range(4))).prompt


# ---------------------------------------------------------------- other sources


@pytest.mark.parametrize(
    "source, text",
    [
        ("answer", ("#### 12", "#### 12")),
        ("reference_solution", (" peer\nworked", " peer\nworked")),
        ("peer_solution", ("", f" peer\n{RIGHT}")),
        ("verdict", (" message", " message")),
        ("feedback", ("", " message")),
        ("oracle_reflection", ("5+7+0=12", "5+7+0=12")),
        ("none", ("", "")),
        ("null", ("", "")),
    ],
)
def test_given_sources_by_hand(source, text):
    contexts, _ = contexts_of(rollouts(True, False), source=source)
    assert contexts.text == text and (source != "null" or contexts.rows.tolist() == [0, 1])
    for i, row in enumerate(contexts.rows):
        assert contexts.kind[row] == source and contexts.status[row] == "ok"
        assert prompt(contexts, i) == chat_ids(TOKENIZER, TEXTS.teacher_prompt("5+7", text[row]))


def bare(*correct):
    """Rollouts of a problem without a reference."""
    return rollouts(*correct, problems=(dataclasses.replace(SUM, reference=None),) * len(correct))


def test_rows_without_a_peer_or_a_reference_have_that_status():
    assert contexts_of(rollouts(True, False), source="peer_solution")[0].status == ("no_peer", "ok")
    assert contexts_of(bare(True, False), source="reference_solution")[0].status == ("no_reference",) * 2


def test_the_question_alone_is_the_student_s_own_prompt():
    asked = rollouts(True, False, prompt=np.array([[5, 6, 0], [7, 8, 9]], np.int32), prompt_length=np.array([2, 3]))
    contexts, _ = contexts_of(asked, source="question")
    assert contexts.rows.tolist() == [0, 1] and contexts.prompt_length.tolist() == [2, 3]
    assert contexts.prompt[:, :3].tolist() == asked.prompt.tolist() and not contexts.prompt[:, 3:].any()


def test_sdpo_distils_the_rows_that_its_authors_distil():
    """Rows with a successful sibling, whatever its text; with feedback also other failures whose message is not empty."""
    alone, two = [True] + [False] * 3, [True] * 2 + [False] * 2
    for rule in ("sdpo", "credit"):
        context = credit.RULES[rule].context
        for correct, expected in (
            ([False] * 4, []),
            (alone, [1, 2, 3]),
            (two, [0, 1, 2, 3]),
            ([True] * 4, [0, 1, 2, 3]),
        ):
            assert contexts_of(rollouts(*correct), source=context, group=4)[0].rows.tolist() == expected
    told = dict(source="peer_solution,feedback", group=4)
    assert contexts_of(rollouts(*[False] * 4), **told)[0].rows.tolist() == [0, 1, 2, 3]
    lone, _ = contexts_of(rollouts(*alone), **told)
    assert lone.rows.tolist() == [1, 2, 3] and lone.status[0] == "no_feedback"
    silent = rollouts(*[False] * 4, verdicts=(Verdict(0.0, "", None, True),) * 4)
    assert not contexts_of(silent, **told)[0].rows.size


def test_shuffled_reflections_are_on_other_questions():
    """Three critiques of two questions, and two hints of one: a sibling's is no control."""
    answers = [f"<critique>{letter}</critique>" for letter in "abc"] + ["<hint>h</hint>", "<hint>i</hint>"]
    record = rollouts(False, False, False, True, True)
    questions = [dataclasses.replace(record.problems[0], question=question) for question in ("p", "p", "q", "p", "p")]
    record = dataclasses.replace(record, problems=tuple(questions))
    contexts, _ = contexts_of(record, *answers, source="shuffled_reflection", group=5)
    assert contexts.text[:2] == ("c", "c") and contexts.text[2] in "ab"
    assert contexts.status == ("ok",) * 3 + ("no_partner",) * 2 and contexts.rows.tolist() == [0, 1, 2]


def test_shuffled_reflections_that_state_the_answer_are_passed_over():
    """The next critique states the first question's answer, so the first row takes the one after it."""
    record = rollouts(*[False] * 3)
    problems = [dataclasses.replace(record.problems[0], question=question) for question in "pqr"]
    answer, problems[1] = problems[0].answer, dataclasses.replace(problems[1], answer="7")
    record = dataclasses.replace(record, problems=tuple(problems))
    answers = ["<critique>a</critique>", f"<critique>it is {answer}</critique>", "<critique>c</critique>"]
    contexts, _ = contexts_of(record, *answers, source="shuffled_reflection", group=3)
    assert contexts.text == ("c", "c", "a")


def test_sources_by_preference_and_together():
    record = rollouts(True, False)
    either, _ = contexts_of(record, source="peer_solution,feedback")
    assert either.kind == ("feedback", "peer_solution") and either.text == ("", f" peer\n{RIGHT}")
    both, _ = contexts_of(record, source="verdict+peer_solution,verdict+reference_solution")
    assert both.kind == ("verdict+reference_solution", "verdict+peer_solution")
    assert both.text == (" message\n peer\nworked", f" message\n peer\n{RIGHT}")
    lacking, _ = contexts_of(bare(True, False), source="peer_solution,reference_solution")
    assert lacking.status == ("no_reference", "ok")


def test_the_critic_is_shown_the_attempt_and_the_answer_and_decodes_greedily():
    critic = Sampler("5+7+0=12", "...")
    contexts, _ = contexts_of(rollouts(False, False), source="critic_feedback", critic=critic, context_length=80)
    assert contexts.status == ("ok", "truncated") and contexts.text == (" peer\n5+7+0=12", "")
    assert critic.requests[0].prompt == chat_ids(TOKENIZER, TEXTS.repair_prompt("5+7", WRONG, "12"))
    assert critic.requests[0].temperature == 0.0


# ---------------------------------------------------------------- negative contexts


def test_wrong_peers_are_failed_siblings():
    other = "5+7+0=11\n#### 11"
    record = rollouts(True, False, False, True, True, True, text=(RIGHT, WRONG, other, RIGHT, RIGHT, RIGHT))
    record = answered(record, None, "13", "11", "12", "12", "12")
    contexts, _ = contexts_of(record, source="answer", group=3, negatives="wrong_peers", count=2)
    first, second = contexts.negatives
    wrong, other_wrong = f" peer\n{WRONG}", f" peer\n{other}"
    assert first.text == (wrong, other_wrong, wrong, "", "", "")
    assert second.text == (other_wrong, "", "", "", "", "")
    assert first.rows.tolist() == [0, 1, 2] and second.rows.tolist() == [0]


def test_wrong_peers_have_an_answer():
    """A failure that was cut before its answer would tell right from wrong by its form."""
    record = answered(rollouts(True, False, False), "12", None, "13")
    contexts, _ = contexts_of(record, source="answer", group=3, negatives="wrong_peers", count=1)
    assert contexts.negatives[0].rows.tolist() == [0, 1]


def test_wrong_answers_are_those_of_the_group_s_worst_failures():
    """The worst first, that of the row itself too, and none that is the right one; a group without a failed answer has none."""
    record = answered(rollouts(True, False, False, True, False, False), "12", "13", "11", "12", "12", None)
    verdicts = list(record.verdicts)
    verdicts[1] = dataclasses.replace(verdicts[1], reward=0.5)
    record = dataclasses.replace(record, verdicts=tuple(verdicts))
    contexts, _ = contexts_of(record, source="answer", group=3, negatives="wrong_answers", count=2)
    worst, second = contexts.negatives
    assert contexts.text == ("#### 12",) * 6
    assert worst.text == ("#### 11",) * 3 + ("",) * 3 and second.text == ("#### 13",) * 3 + ("",) * 3
    assert prompt(worst, 1) == chat_ids(TOKENIZER, TEXTS.teacher_prompt("5+7", "#### 11"))


def test_other_prompts_are_the_questions_of_other_groups_with_the_row_s_text():
    questions = [dataclasses.replace(SUM, question=question) for question in ("5+7", "5+7", "1+1", "1+1")]
    record = rollouts(True, False, True, False, problems=tuple(questions))
    contexts, _ = contexts_of(record, source="verdict", negatives="other_prompts", count=2)
    first, second = contexts.negatives
    assert first.text == contexts.text and second.rows.size == 0  # there is one other group
    for row, question in enumerate(("1+1", "1+1", "5+7", "5+7")):
        assert prompt(first, row) == chat_ids(TOKENIZER, TEXTS.teacher_prompt(question, " message"))
