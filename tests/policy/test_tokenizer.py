"""The embedded tokenizer: equal in every process and lossless; chat templates; a real tokenizer."""

import datetime
import json
import re
import resource
import string
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amrsd_jax.policy.chat_template import CHATML, PLAIN
from amrsd_jax.policy.tokenizer import (
    absent_ids,
    chat_ids,
    check_template,
    embedded_tokenizer,
    load_tokenizer,
    token_texts,
)
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
    with pytest.raises(ValueError, match=f"tokenizer = '{tmp_path}': {message}"):
        load_tokenizer(tmp_path)


def test_a_template_can_be_named_or_read_from_a_file(tmp_path):
    tokenizer = embedded_tokenizer(["user"])
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "own.jinja").write_text("{% for m in messages %}Q: {{ m.content }}\nA:{% endfor %}")
    texts = {"chatml": "<|im_start|>user\n1+2<|im_end|>\n<|im_start|>assistant\n", "plain": "1+2\n\n",
             str(tmp_path / "own.jinja"): "Q: 1+2\nA:"}  # fmt: skip
    for template, text in texts.items():
        loaded = load_tokenizer(tmp_path, template)
        assert loaded.decode(chat_ids(loaded, [{"role": "user", "content": "1+2"}])) == text
    with pytest.raises(ValueError, match="chat_template.path = 'chatlm': no readable file; did you mean 'chatml'"):
        load_tokenizer(tmp_path, "chatlm")


@pytest.mark.parametrize("files", [[], ["chat_template.jinja"], ["tokenizer.json"]])
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, files):
    for file in files:
        (tmp_path / file).write_text("{")
    with pytest.raises(ValueError, match=f"tokenizer = '{tmp_path}': ") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_absent_ids_are_gaps_and_all_beyond_the_last_one():
    tokenizer = embedded_tokenizer(WORDS)
    beyond = range(len(tokenizer), 1 << 31)
    assert absent_ids(tokenizer) == (beyond,)
    vocabulary = {piece: id + 2 * (id > 50) for piece, id in tokenizer.get_vocab().items()}
    tokenizer.get_vocab = lambda: vocabulary
    assert absent_ids(tokenizer) == (range(51, 53), range(beyond.start + 2, beyond.stop))


# ---------------------------------------------------------------- templates


def ask(*contents, system=None):
    return [{"role": "system", "content": system}] * (system is not None) + [
        {"role": "user", "content": content} for content in contents
    ]


def with_template(template):
    tokenizer = embedded_tokenizer(WORDS)
    tokenizer.chat_template = template
    return tokenizer


TEMPLATES = {
    "chatml": CHATML,
    "plain": PLAIN,
    "trims": CHATML.replace("message.content", "message.content | trim"),
    "within a sentence": "{% for m in messages %}<|im_start|>He says '{{ m.content }}'.<|im_end|>{% endfor %}",
    "changes case": "{% for m in messages %}<|im_start|>{{ m.content | upper }}{% endfor %}",
    "splits": "{% for m in messages %}{{ m.content.split('<|im_end|>') | join('+') }}<|im_end|>{% endfor %}",
}


SPELLED = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>"]


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(TEMPLATES)),
    ascii_text | st.lists(st.sampled_from([*WORDS, "<|im_", "end|>", "<think>", "�"])).map("".join),
)
def test_ordinary_text_has_the_ids_of_the_whole_rendered_text(template, text):
    assume(not any(token in text for token in SPELLED[:3]))
    tokenizer, messages = with_template(TEMPLATES[template]), ask(text, "7")
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat_ids(tokenizer, messages) == tokenizer.encode(rendered)


@settings(max_examples=60)
@given(st.sampled_from(sorted(TEMPLATES)), st.lists(st.sampled_from([*SPELLED, "user", " ", "\n", "7"])).map("".join))
def test_no_text_becomes_a_control_token(template, text):
    tokenizer = with_template(TEMPLATES[template])
    control = {tokenizer.encode(token)[0] for token in SPELLED[:3]}
    found, plain = (
        [id for id in chat_ids(tokenizer, ask(content, system="hint")) if id in control] for content in (text, "7")
    )
    assert found == plain or template == "splits"
    if template == "chatml":
        whole = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(chat_ids(tokenizer, ask(text))) == whole


@pytest.mark.parametrize("refusal", ["{{ raise_exception('System role not supported') }}", ""])
def test_a_template_without_a_system_role_takes_the_text_before_the_users(refusal):
    messages = "{% for message in messages %}{% if message.role == 'system' %}" + refusal + "{% else %}"
    tokenizer = with_template(
        CHATML.replace("{% for message in messages %}", messages).replace("{% endfor %}", "{% endif %}{% endfor %}")
    )
    assert tokenizer.decode(chat_ids(tokenizer, ask("1+2", system="hint"))) == tokenizer.decode(
        chat_ids(tokenizer, ask("hint\n\n1+2"))
    )


@pytest.mark.parametrize(
    "template, message",
    [
        ("", "the user's message does not reach the prompt"),
        ("hello", "the user's message does not reach the prompt"),
        ("{% for m in messages %}{{ m.content }", "TemplateSyntaxError"),
        ("{{ nope.nope }}", "UndefinedError: 'nope' is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ raise_exception('no') }}", "TemplateError: no"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_a_template_that_fails_is_told_in_one_line(template, message):
    with pytest.raises(ValueError, match=f"chat template: .*{message}") as error:
        check_template(with_template(template), {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", ["", "{% if messages[0].role == 'system' %}"])
def test_a_template_that_does_not_end_is_stopped(before):
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = with_template(before + endless + "{% endif %}" * bool(before) + CHATML)
    with pytest.raises(TimeoutError, match="chat template: a short conversation takes it more than 0.2 seconds"):
        check_template(tokenizer, {}, seconds=0.2)


@pytest.mark.parametrize(
    "builds, message",
    [
        ("{{ 'x' * 10000000000 }}", "MemoryError"),
        ("{{ '%10000000000d' % 7 }}", "MemoryError"),
        (
            "{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
            "MemoryError",
        ),
        ("{{ 'x' * 2000000 }}", "it writes 2,000,0.. characters for messages of 1; expected at most 1,000,000 more"),
    ],
)
def test_a_template_that_writes_an_enormous_text_is_stopped(builds, message):
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ValueError, match=f"chat template: {message}"):
        check_template(with_template(builds + CHATML), {})
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_arguments_that_the_template_does_not_read_are_told():
    reads = "{% if enable_thinking is defined and not enable_thinking %}<think>{% endif %}{% generation %}{% endgeneration %}"
    tokenizer = with_template(CHATML + reads)
    assert check_template(tokenizer, {"enable_thinking": False}) == []
    assert "reads no such variable; it reads enable_thinking" in check_template(tokenizer, {"day": 1})[0]
    with pytest.raises(ValueError, match="chat_template.enable_thinkng = False: .* did you mean 'enable_thinking'"):
        check_template(tokenizer, {"enable_thinkng": False})
    for reserved in ("messages", "add_generation_prompt", "tokenize"):
        with pytest.raises(ValueError, match=reserved):
            check_template(tokenizer, {reserved: True})
    for text in ("False", "no", "off"):
        with pytest.raises(ValueError, match=f"chat_template.enable_thinking = '{text}': a text; expected"):
            check_template(tokenizer, {"enable_thinking": text})


def test_the_day_is_fixed(monkeypatch):
    tokenizer = with_template("\n {{ strftime_now('%d %b %Y') }} " + CHATML)
    texts = []
    for day in (27, 28):
        now = type("Day", (datetime.datetime,), {"now": classmethod(lambda cls, tz=None, d=day: cls(2026, 11, d))})
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", now)
        texts.append(tokenizer.decode(chat_ids(tokenizer, ask("7"))))
    assert texts[0] == texts[1] and texts[0].startswith("\n 26 Jul 2024 <|im_start|>")
    assert "writes a date: 26 Jul 2024; chat_template.date_string" in check_template(tokenizer, {})[0]
    given = dict(date_string='the 1st, "today"')
    assert tokenizer.decode(chat_ids(tokenizer, ask("7"), **given)).startswith('\n the 1st, "today" <|im_start|>')
    assert check_template(tokenizer, given) == []


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


def test_spelled_tokens_have_the_ids_of_plain_text(qwen3):
    """Added tokens that the template does not write stay tokens, since a policy writes its thoughts with them."""
    spelled = "Say <|im_end|>\n<|im_start|>assistant <think>"
    between = qwen3.encode("user\n" + spelled, add_special_tokens=False, split_special_tokens=True)
    ids = chat_ids(qwen3, ask(spelled))
    assert ids[1 : ids.index(151645)] == between and 151667 in between
    unthinking = chat_ids(qwen3, ask(spelled), enable_thinking=False)
    assert [unthinking.count(id) for id in (151644, 151645, 151667, 151668)] == [2, 1, 1, 1]
    assert qwen3.decode(unthinking) == qwen3.decode([*ids, *qwen3.encode("<think>\n\n</think>\n\n")])


@settings(max_examples=50)
@given(st.text() | st.text(alphabet="é漢🎉🧮\u0301ab\n�"))
def test_texts_of_tokens_together_are_the_text(qwen3, text):
    ids = qwen3.encode(text, add_special_tokens=False)
    for tokens in (ids, ids[:-1], ids[1:]):
        assert "".join(token_texts(qwen3, tokens)) == qwen3.decode(tokens)


def test_a_split_character_is_shown_at_its_last_token(qwen3):
    assert token_texts(qwen3, qwen3.encode("数学🧮 é")) == ["数学", "", "🧮", " é"]
    first, _ = qwen3.encode("🧮")
    assert token_texts(qwen3, [first, *qwen3.encode("ab")]) == ["�", "ab"]
