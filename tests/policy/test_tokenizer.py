"""The embedded tokenizer: equal in every process and lossless; chat templates; a real tokenizer."""

import json
import re
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.policy.tokenizer import chat_ids, embedded_tokenizer, load_tokenizer, token_texts
from amrsd_jax.reflection.prompts import templates, vocabulary_words
from amrsd_jax.tasks.addition import Addition
from amrsd_jax.tasks.strings import Strings

WORDS = [*vocabulary_words(templates("chain")), *Strings.words]
TOKENIZER = embedded_tokenizer(WORDS)
MESSAGES = [{"role": "user", "content": "28167+20566\n hint"}]
SAMPLE = "28167+20566\n<hint>7+6+0=13</hint> right\n#### 48733"
ascii_text = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " \n")


@given(ascii_text | st.lists(st.sampled_from([*WORDS, " ", "\n", "<|im_end|>", "7"])).map("".join))
def test_ascii_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text())
def test_any_text_is_encoded_and_unknown_characters_are_one_mark_each(text):
    known = set(string.ascii_letters + string.digits + string.punctuation + " \n�")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == "".join(c if c in known else "�" for c in text)


def test_pieces_by_hand():
    assert TOKENIZER.tokenize(SAMPLE) == [
        *"28167+20566", "\n", "<hint>", *"7+6+0=13", "</hint>", " right", "\n", "####", " ", *"48733",
    ]  # fmt: skip
    assert TOKENIZER.tokenize("rot kqabf rev") == ["rot", *" kqabf", " rev"]


@given(st.text(alphabet=string.digits + "+=# r", min_size=1))
def test_digits_are_always_alone(text):
    pieces = TOKENIZER.tokenize(text)
    assert [piece for piece in pieces if re.search(r"\d", piece)] == re.findall(r"\d", text)


@pytest.mark.parametrize("word", dict.fromkeys([*WORDS, *Addition.words]))
def test_a_listed_word_is_one_token(word):
    assert TOKENIZER.tokenize(word) == [word]
    if word.isalpha():
        assert TOKENIZER.tokenize(f"\n {word}") == ["\n", f" {word}"]


def test_every_entry_of_the_vocabulary_is_in_use():
    assert all(TOKENIZER.encode(piece) == [number] for piece, number in TOKENIZER.get_vocab().items())


def test_special_tokens():
    assert TOKENIZER.decode([TOKENIZER.eos_token_id]) == "<|im_end|>"
    assert TOKENIZER.pad_token_id == TOKENIZER.encode("<|endoftext|>")[0] == 0
    assert TOKENIZER.decode(TOKENIZER.encode("7<|im_end|>"), skip_special_tokens=True) == "7"


def test_chatml_by_hand():
    ids = chat_ids(TOKENIZER, [{"role": "system", "content": "hint"}, {"role": "user", "content": "1+2\n"}])
    assert token_texts(TOKENIZER, ids) == [
        "<|im_start|>", "system", "\n", "hint", "<|im_end|>", "\n",
        "<|im_start|>", "user", "\n", "1", "+", "2", "\n", "<|im_end|>", "\n",
        "<|im_start|>", "assistant", "\n",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_fresh_process_makes_the_same_ids():
    """Ids depend neither on the hash seed nor on a training run."""
    program = (
        "import json, sys\n"
        "from amrsd_jax.policy.tokenizer import chat_ids, embedded_tokenizer\n"
        "words, messages, sample = json.loads(sys.argv[1])\n"
        "tokenizer = embedded_tokenizer(words)\n"
        "print(json.dumps([tokenizer.get_vocab(), tokenizer.encode(sample), chat_ids(tokenizer, messages)]))\n"
    )
    arguments = json.dumps([WORDS, MESSAGES, SAMPLE])
    done = subprocess.run([sys.executable, "-c", program, arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [TOKENIZER.get_vocab(), TOKENIZER.encode(SAMPLE), chat_ids(TOKENIZER, MESSAGES)]


def test_saved_and_loaded_is_the_same(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab() and len(loaded) == len(TOKENIZER)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id)
    for text in (SAMPLE, "é\t<|im_start|>\n\n  a b", "#### -5"):
        assert loaded.encode(text) == TOKENIZER.encode(text)
        assert loaded.decode(loaded.encode(text)) == TOKENIZER.decode(TOKENIZER.encode(text))
    assert chat_ids(loaded, MESSAGES) == chat_ids(TOKENIZER, MESSAGES)


@pytest.mark.parametrize("lost, message", [("chat_template", "no chat template"), ("eos_token", "no end-of-sequence")])
def test_a_tokenizer_that_cannot_chat_or_stop_is_refused(tmp_path, lost, message):
    tokenizer = embedded_tokenizer([])
    setattr(tokenizer, lost, None)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"tokenizer {tmp_path}: {message}"):
        load_tokenizer(tmp_path)


def test_a_missing_padding_token_is_the_end_token(tmp_path):
    tokenizer = embedded_tokenizer([])
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == tokenizer.eos_token_id


def test_qwen3_chat_with_and_without_thinking(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizer" / "qwen3")
    assert tokenizer.encode("Hello, world!") == [9707, 11, 1879, 0]
    header = "<|im_start|>user\nWhat is 1+2?<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "What is 1+2?"}]
    assert tokenizer.decode(chat_ids(tokenizer, messages)) == header
    plain = chat_ids(tokenizer, messages, enable_thinking=False)
    assert tokenizer.decode(plain) == header + "<think>\n\n</think>\n\n"
    assert plain[0] == 151644 and 151667 in plain
    assert tokenizer.eos_token_id == 151645
