"""Prompts fitted into a length: never longer than the limit, and always with their end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.policy.tokenizer import chat_ids, embedded_tokenizer
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.prompts import templates, vocabulary_words

CHAIN, MATHEMATICS = templates("chain"), templates("mathematics")
EMBEDDED = embedded_tokenizer(vocabulary_words(CHAIN))


def teacher_prompt(text):
    return CHAIN.teacher_prompt("1+2", text)


def test_a_prompt_with_room_is_left_as_it_is():
    whole = chat_ids(EMBEDDED, teacher_prompt("1+2+0=3"))
    assert fit(EMBEDDED, teacher_prompt, "1+2+0=3", len(whole)) == whole


def test_the_end_of_the_text_is_cut_by_hand():
    limit = len(chat_ids(EMBEDDED, teacher_prompt("1+2+0=3"))) - 2
    assert fit(EMBEDDED, teacher_prompt, "1+2+0=3", limit) == chat_ids(EMBEDDED, teacher_prompt("1+2+0"))


def test_no_room_even_without_the_text():
    least = len(chat_ids(EMBEDDED, teacher_prompt("")))
    assert fit(EMBEDDED, teacher_prompt, "1+2+0=3", least) == chat_ids(EMBEDDED, teacher_prompt(""))
    assert fit(EMBEDDED, teacher_prompt, "1+2+0=3", least - 1) is None


def check(tokenizer, build, text, room):
    """Checks `fit` for a text and a limit of `room` tokens more than the conversation with an empty text."""
    least = len(chat_ids(tokenizer, build("")))
    ids = fit(tokenizer, build, text, least + room)
    assert ids is not None and len(ids) <= least + room
    tail = tokenizer.decode(chat_ids(tokenizer, build("@@"))).rpartition("@@")[2]
    assert tail and tokenizer.decode(ids).endswith(tail)
    return ids


@given(st.text(), st.integers(0, 20))
def test_limit_and_tail_hold_for_any_text(text, room):
    check(EMBEDDED, teacher_prompt, text, room)


@settings(max_examples=50)
@given(st.text() | st.text(alphabet="é漢🎉 ́ab\n"), st.integers(1, 20))
def test_limit_and_tail_hold_where_a_cut_text_encodes_differently(qwen3, text, room):
    """A byte-level tokenizer splits characters, and merges the text with its surroundings."""

    def build(text):
        return MATHEMATICS.teacher_prompt("What is 1+2?", text)

    ids = check(qwen3, build, text, room)
    assert qwen3.decode(ids).endswith("within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n")
