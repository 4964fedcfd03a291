"""Contexts end to end, with a sampler that answers from a list: who is asked what, and what becomes of it."""

import dataclasses

import numpy as np
import pytest

from amrsd_jax.policy.tokenizer import chat_ids, embedded_tokenizer
from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.contexts import ContextMaker, Writers
from amrsd_jax.reflection.prompts import templates, words
from amrsd_jax.sampling import Completion
from amrsd_jax.tasks import make
from amrsd_jax.tasks.base import Problem, Verdict

TEXTS = templates("chain")
TOKENIZER = embedded_tokenizer(words(TEXTS))
TASK = make("addition", {"digits": 1}, seed=0)
SUM = Problem("sum", "5+7", "12", reference="worked")
RIGHT, WRONG = "5+7+0=12\n#### 12", "5+7+0=13\n#### 13"


def rollouts(*correct):
    rows = len(correct)
    arrays = {name: np.zeros((rows, 1), np.float32) for name in ("mask", "logp", "logp_plain")}
    return Rollouts(
        problems=(SUM,) * rows,
        text=tuple(RIGHT if right else WRONG for right in correct),
        verdicts=tuple(Verdict(float(right), "message", None, True) for right in correct),
        finish_reason=("stop",) * rows,
        prompt=np.zeros((rows, 1), np.int32),
        prompt_length=np.ones(rows, np.int32),
        response=np.zeros((rows, 1), np.int32),
        reward=np.array(correct, np.float32),
        first_error=np.full((rows, 2), -1, np.int32),
        **arrays,
    )


def reflector(**changes):
    settings = dict(
        source="self_reflection",
        negatives="",
        count=0,
        group=2,
        prompt_length=200,
        context_length=60,
        temperature=0.7,
        peers=True,
        reference=False,
    )
    return ContextMaker(task=TASK, tokenizer=TOKENIZER, texts=TEXTS, template={}, asking={}, **(settings | changes))


class Sampler:
    """Answers row r with written[r]; an answer that ends in "..." was cut by length. Completes in reverse order."""

    def __init__(self, *written):
        self.written, self.requests = written, {}

    def __call__(self, requests):
        for request in reversed(list(requests)):
            self.requests[request.row] = request
            text = self.written[request.row]
            tokens = np.array([*TOKENIZER.encode(text.removesuffix("...")), TOKENIZER.eos_token_id])
            zeros = np.zeros(len(tokens), np.float32)
            yield Completion(request, 0, tokens, zeros, zeros, "length" if text.endswith("...") else "stop")


def test_usable_reflections_become_contexts_and_the_others_say_why():
    sampler = Sampler("<hint>5+7</hint>", "<critique>carry</critique>", "<hint>carry...", "<critique>12</critique>", "")
    record = rollouts(True, False, True, False, False)
    seen = reflector(group=5)(record, np.array([1, 1, 1, 1, 0], bool), Writers(sampler))
    assert seen.kind == ("hint", "critique", "hint", "critique", "")
    assert seen.status == ("ok", "ok", "truncated", "leak", "not_needed")
    assert seen.text == ("5+7", "carry", "", "", "")
    assert seen.rows.tolist() == [0, 1]
    for i, text in enumerate(("5+7", "carry")):
        context = chat_ids(TOKENIZER, TEXTS.reread("5+7", text))
        assert seen.context_length[i] == len(context)
        assert seen.context[i].tolist() == context + [0] * (60 - len(context))
    assert sorted(sampler.requests) == [0, 1, 2, 3]
    assert {request.temperature for request in sampler.requests.values()} == {0.7}


def test_the_prompt_shows_the_attempt_its_verdict_and_a_correct_sibling():
    sampler = Sampler("", "")
    reflector()(rollouts(True, False), np.ones(2, bool), Writers(sampler))
    hint = TEXTS.reflect("hint", "5+7", RIGHT, "message", None, None)
    critique = TEXTS.reflect("critique", "5+7", WRONG, "message", RIGHT, None)
    assert sampler.requests[0].prompt == chat_ids(TOKENIZER, hint)
    assert sampler.requests[1].prompt == chat_ids(TOKENIZER, critique)


def test_a_long_prompt_first_loses_the_peer_then_the_end_of_the_attempt():
    alone = chat_ids(TOKENIZER, TEXTS.reflect("critique", "5+7", WRONG, "message", None, None))
    shorter = chat_ids(TOKENIZER, TEXTS.reflect("critique", "5+7", WRONG[:-1], "message", None, None))
    for prompt in (alone, shorter):
        sampler = Sampler("", "")
        reflector(prompt_length=len(prompt))(rollouts(True, False), np.array([0, 1], bool), Writers(sampler))
        assert sampler.requests[1].prompt == prompt


@pytest.mark.parametrize("small, asked", [("prompt_length", 0), ("context_length", 2)])
def test_without_room_a_row_has_no_context(small, asked):
    sampler = Sampler("<hint>5+7</hint>", "<critique>carry</critique>")
    seen = reflector(**{small: 5})(rollouts(True, False), np.ones(2, bool), Writers(sampler))
    assert seen.status == ("no_room", "no_room")
    assert seen.rows.size == 0 and seen.context.shape[0] == 0
    assert len(sampler.requests) == asked


def test_a_reflection_is_shortened_to_fit_the_context():
    least = len(chat_ids(TOKENIZER, TEXTS.reread("5+7", "")))
    seen = reflector(group=1, context_length=least + 2)(
        rollouts(True), np.ones(1, bool), Writers(Sampler("<hint>7+5</hint>"))
    )
    assert seen.context.tolist() == [chat_ids(TOKENIZER, TEXTS.reread("5+7", "7+"))]
    assert seen.text == ("7+5",)


def test_the_reference_is_shown_to_the_reflection_and_never_to_the_teacher():
    sampler = Sampler("<critique>carry</critique>", "<critique>carry</critique>")
    seen = reflector(reference=True)(rollouts(False, False), np.ones(2, bool), Writers(sampler))
    assert "worked" in TOKENIZER.decode(sampler.requests[0].prompt)
    assert "worked" not in TOKENIZER.decode(seen.context[0])


def test_nothing_needed_is_nothing_sampled():
    sampler = Sampler()
    seen = reflector()(rollouts(True, False), np.zeros(2, bool), Writers(sampler))
    assert seen.status == ("not_needed", "not_needed") and not sampler.requests
    assert seen.context.shape == (0, 60)


# ---------------------------------------------------------------- other sources


def views(source, record, *written, **changes):
    needed = np.ones(len(record.text), bool)
    return reflector(source=source, **changes)(record, needed, Writers(Sampler(*written), Sampler(*written)))


@pytest.mark.parametrize(
    "source, correct, text",
    [
        ("answer", (True, False), ("#### 12", "#### 12")),
        ("reference_solution", (True, False), (" peer\nworked", " peer\nworked")),
        ("peer_solution", (True, False), ("", f" peer\n{RIGHT}")),
        ("feedback", (True, False), (" message", " message")),
        ("oracle_reflection", (True, False), ("5+7+0=12", "5+7+0=12")),
        ("none", (True, False), ("", "")),
    ],
)
def test_given_sources_by_hand(source, correct, text):
    seen = views(source, rollouts(*correct))
    assert seen.text == text
    for i, row in enumerate(seen.rows):
        assert seen.kind[row] == source and seen.status[row] == "ok"
        prompt = chat_ids(TOKENIZER, TEXTS.reread("5+7", text[row]))
        assert seen.context[i, : seen.context_length[i]].tolist() == prompt


def test_rows_without_a_peer_or_a_reference_say_so():
    assert views("peer_solution", rollouts(True, False)).status == ("no_peer", "ok")
    bare = dataclasses.replace(rollouts(True, False), problems=(dataclasses.replace(SUM, reference=None),) * 2)
    assert views("reference_solution", bare).status == ("no_reference",) * 2


def test_shuffled_reflections_are_those_of_other_rows_of_their_kind():
    texts = [f"<critique>{letter}</critique>" for letter in "abc"] + ["<hint>h</hint>", "<hint>i</hint>"]
    seen = views("shuffled_reflection", rollouts(False, False, False, True, True), *texts, group=5)
    assert sorted(seen.text[:3]) == ["a", "b", "c"] and all(x != y for x, y in zip(seen.text[:3], "abc", strict=True))
    assert seen.text[3:] == ("i", "h")
    alone = views("shuffled_reflection", rollouts(False, True), "<critique>a</critique>", "<hint>b</hint>")
    assert alone.status == ("no_partner",) * 2 and alone.rows.size == 0


def test_sources_stand_in_for_each_other_and_stand_together():
    record = rollouts(True, False)
    first = views("peer_solution,feedback", record)
    assert first.kind == ("feedback", "peer_solution") and first.text == (" message", f" peer\n{RIGHT}")
    both = views("feedback+peer_solution,feedback+reference_solution", record)
    assert both.kind == ("feedback+reference_solution", "feedback+peer_solution")
    assert both.text == (" message\n peer\nworked", f" message\n peer\n{RIGHT}")
    bare = dataclasses.replace(record, problems=(dataclasses.replace(SUM, reference=None),) * 2)
    assert views("peer_solution,reference_solution", bare).status == ("no_reference", "ok")


def test_the_critic_sees_the_attempt_and_the_answer_and_writes_greedily():
    critic = Sampler("5+7+0=12", "...")
    maker = reflector(source="critic_feedback", context_length=80)
    seen = maker(rollouts(False, False), np.ones(2, bool), Writers(Sampler(), critic))
    assert seen.status == ("ok", "truncated") and seen.text == (" peer\n5+7+0=12", "")
    assert critic.requests[0].prompt == chat_ids(TOKENIZER, TEXTS.retrace("5+7", WRONG, "12"))
    assert critic.requests[0].temperature == 0.0


# ---------------------------------------------------------------- negative contexts


def test_wrong_peers_are_failed_siblings_with_another_text():
    record = rollouts(True, False, False, True, True, True)
    other = "5+7+0=11\n#### 11"
    record = dataclasses.replace(record, text=(RIGHT, WRONG, other, *record.text[3:]))
    seen = views("answer", record, group=3, negatives="wrong_peers", count=2)
    first, second = seen.negatives
    shown = f" peer\n{WRONG}", f" peer\n{other}"
    assert first.text == (shown[0], shown[1], shown[0], "", "", "")
    assert second.text == (shown[1], "", "", "", "", "")
    assert first.rows.tolist() == [0, 1, 2] and second.rows.tolist() == [0]


def test_other_prompts_ask_another_group_s_question_with_the_row_s_own_view():
    record = rollouts(True, False, True, False)
    questions = [dataclasses.replace(SUM, question=question) for question in ("5+7", "5+7", "1+1", "1+1")]
    record = dataclasses.replace(record, problems=tuple(questions))
    seen = views("feedback", record, negatives="other_prompts", count=2)
    first, second = seen.negatives
    assert first.text == seen.text and second.rows.size == 0  # there is one other group
    for row, question in enumerate(("1+1", "1+1", "5+7", "5+7")):
        prompt = chat_ids(TOKENIZER, TEXTS.reread(question, " message"))
        assert first.context[row, : first.context_length[row]].tolist() == prompt
