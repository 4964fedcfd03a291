"""Thoughts are cut from what others are shown, wherever their tags are or are missing."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.policy.tokenizer import CHATML, embedded_tokenizer, load_tokenizer
from amrsd_jax.reflection.contexts import Writers
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.thinking import opens_thinking, without_thinking
from tests.reflection.test_contexts import Sampler, reflector, rollouts


@pytest.mark.parametrize(
    "text, opened, said",
    [
        (" no thoughts \n", False, " no thoughts \n"),  # as it is, to the last space
        ("<think>\nsecret\n</think>\n\nSo 5.", False, "So 5."),
        ("secret</think>So 5.", False, "So 5."),  # the prompt had opened it
        ("secret</think>So 5.", True, "So 5."),
        ("<think>secret", False, ""),  # cut while thinking
        ("secret", True, ""),
        ("Well. <think>secret", False, "Well."),
        ("<think>a</think>b<think>secret</think>c", False, "c"),
        ("<think>a<think>b</think>secret</think>c", False, "c"),
        ("<think>a</think>b<think>secret", False, "b"),
        ("", False, ""),
    ],
)
def test_by_hand(text, opened, said):
    assert without_thinking(text, opened) == said


@given(st.lists(st.sampled_from(["<think>", "</think>", "x", "\n"])), st.booleans())
def test_nothing_said_inside_a_thought_is_left(pieces, opened):
    depth, inside = int(opened), []
    for piece in pieces:  # what a reader of the tags would call a thought: from an open tag to the next closing one
        depth = {"<think>": 1, "</think>": 0}.get(piece, depth)
        inside.append("secret" if piece == "x" and depth else piece)
    said = without_thinking("".join(inside), opened)
    assert "secret" not in said and "think>" not in said


def test_a_template_that_opens_the_thought():
    tokenizer = embedded_tokenizer(["<think>", "</think>"])
    assert not opens_thinking(tokenizer)
    for tail, opened in (("<think>\\n", True), ("<think></think>", False)):
        tokenizer.chat_template = CHATML + "{% if shut is not defined %}" + tail + "{% endif %}"
        assert opens_thinking(tokenizer) == opened and not opens_thinking(tokenizer, shut=True)


def test_qwen3_closes_its_own_thoughts(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizer" / "qwen3")
    assert not opens_thinking(tokenizer) and not opens_thinking(tokenizer, enable_thinking=False)
    thought = "<think>\nsecret\n</think>\n\nSo 5."
    assert (
        tokenizer.decode(tokenizer.encode(thought), skip_special_tokens=True) == thought
    )  # tags are no special tokens


def of(*texts, correct):
    return dataclasses.replace(rollouts(*correct), text=texts)


def test_a_sibling_is_shown_without_its_thoughts_and_passed_over_if_it_has_nothing_else():
    record = of(
        "<think>mine</think>own",
        "<think>secret",
        "<think>other</think>own",
        "<think>secret</think>peer",
        correct=[1] * 4,
    )
    seen = [diagnose(record, row, 4, peers=True, reference=False).peer for row in range(4)]
    assert seen == ["peer", "own", "peer", "own"]
    assert diagnose(of("a", "secret", correct=[0, 1]), 0, 2, peers=True, reference=False, opened=True).peer is None


def test_wrong_peers_are_shown_without_their_thoughts_too():
    maker = reflector(source="peer_solution", negatives="wrong_peers", count=1, group=3)
    record = of("5+7+0=12", "<think>7+5=1</think>5+7+0=13", "<think>7+7", correct=[1, 0, 0])
    made = maker(record, record.reward == 0, Writers(Sampler()))
    assert all("=1<" not in text and "think" not in text for text in (*made.text, *made.negatives[0].text))
    assert made.negatives[0].text == (
        "",
        "",
        " peer\n5+7+0=13",
    )  # the third row's; the second's only wrong sibling thinks on


def test_the_attempt_keeps_its_thoughts_and_a_reflection_does_not():
    sampler = Sampler("<think>a draft: <hint>12 or so</hint></think><hint>Mind it.</hint>", "<think><critique>draft...")
    record = of("<think>5+7</think>5+7+0=12", "5+7+0=13", correct=[1, 0])
    made = reflector()(record, record.reward >= 0, Writers(sampler))
    assert made.status == ("ok", "truncated") and made.text == ("Mind it.", "")
    asked = reflector().tokenizer.decode(sampler.requests[0].prompt)
    assert "<think>5+7</think>" in asked.replace(" ", "")
