"""Thoughts are removed from texts that are shown to another reader, also where a tag is missing."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.policy.tokenizer import CHATML, embedded_tokenizer, load_tokenizer
from amrsd_jax.records import Completion
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.sources import NEGATIVES, Generators, PrivilegedTexts, privileged_texts
from amrsd_jax.reflection.thinking import opens_thinking
from amrsd_jax.tasks.thoughts import after_thoughts
from tests.reflection.test_diagnose import context_settings
from tests.tiny import tiny_rollouts


@pytest.mark.parametrize(
    "text, opened, visible",
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
def test_by_hand(text, opened, visible):
    assert after_thoughts(text, opened) == visible


@given(st.lists(st.sampled_from(["<think>", "</think>", "x", "\n"])), st.booleans())
def test_nothing_inside_a_thought_is_left(pieces, opened):
    depth, inside = int(opened), []
    for piece in pieces:  # a thought reaches from an opening tag to the next closing one
        depth = {"<think>": 1, "</think>": 0}.get(piece, depth)
        inside.append("secret" if piece == "x" and depth else piece)
    visible = after_thoughts("".join(inside), opened)
    assert "secret" not in visible and "think>" not in visible


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
    return tiny_rollouts(correct, text=texts)


def test_a_peer_is_shown_without_its_thoughts_and_skipped_if_it_has_nothing_else():
    texts = "<think>mine</think>own", "<think>secret", "<think>other</think>own", "<think>secret</think>peer"
    record = of(*texts, correct=[1] * 4)
    assert [diagnose(record, row, context_settings()).peer for row in range(4)] == ["peer", "own", "peer", "own"]
    tokenizer = embedded_tokenizer(["<think>"])
    tokenizer.chat_template = CHATML + "<think>"
    assert diagnose(of("a", "secret", correct=[0, 1]), 0, context_settings(2, tokenizer)).peer is None


def test_wrong_peers_are_shown_without_their_thoughts():
    """The third row's only other wrong sibling is row 1; the second's, row 2, never ends its thought."""
    record = of("5+7+0=12", "<think>7+5=1</think>5+7+0=13", "<think>7+7", correct=[1, 0, 0])
    record = dataclasses.replace(
        record, verdicts=tuple(dataclasses.replace(one, parsed="13") for one in record.verdicts)
    )
    texts = PrivilegedTexts([""] * 3, ["ok"] * 3, ["text"] * 3)
    (negative,) = NEGATIVES["wrong_peers"](context_settings(3), record, texts, 1)
    assert [negative.texts.text[row] for row in (1, 2)] == ["", " peer\n5+7+0=13"]


def test_an_attempt_keeps_its_thoughts_and_a_reflection_does_not():
    settings = context_settings(2)
    record, requests = of("<think>5+7</think>5+7+0=12", "5+7+0=13", correct=[1, 0]), []
    written = "<think>a draft: <hint>12 or so</hint></think><hint>Mind it.</hint>", "<think><critique>draft"

    def sampler(asked):
        for request in asked:
            requests.append(request)
            tokens = np.array(settings.tokenizer.encode(written[request.row]))
            reason = "length" if request.row else "stop"
            yield Completion(request, 0, tokens, np.zeros(len(tokens), np.float32), reason)

    generators = Generators(Reflections(settings, sampler))
    texts = privileged_texts("self_reflection", settings, record, np.ones(2, bool), generators)
    assert texts.status == ["ok", "truncated"] and texts.text == ["Mind it.", ""]
    assert "<think>5+7</think>" in settings.tokenizer.decode(requests[0].prompt)
