"""Makes tokenizers (a small one for the embedded tasks, or any of Hugging Face) and encodes chat messages.

The contents of messages are text, whatever they spell: only the chat template writes control tokens.
"""

import difflib
import inspect
import itertools
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from amrsd_jax.names import first_line, nearest
from amrsd_jax.policy import chat_template, gguf
from amrsd_jax.policy.chat_template import CHATML

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

LONGEST = (
    1_000_000  # characters that a chat template may write around messages, our choice; published ones write 10,000
)
_WORDS = ("true", "false", "yes", "no", "on", "off")  # texts by which a user means a truth value
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# A tag, a run of letters with a leading space, a run of #, or one character, so that every digit is a token.
_PIECES = r"</?[a-z]+>| ?[A-Za-z]+|#+|[\s\S]"


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used: these methods, `eos_token_id` and `added_tokens_decoder`.

    `transformers` is imported only where a tokenizer is made, because that takes seconds and loads PyTorch if it is installed.
    """

    def __len__(self) -> int:
        """Returns the size of the vocabulary."""

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Returns the token ids of a text."""

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Returns the text of token ids."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Renders messages as one text."""

    def get_chat_template(self) -> str:
        """Returns the chat template."""

    def get_vocab(self) -> dict[str, int]:
        """Returns the id of every entry of the vocabulary."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Writes a folder that `load_tokenizer` reads."""


def embedded_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Builds a small tokenizer from a list of words, without training, so that ids are the same in every process.

    The vocabulary holds the printable ASCII characters, a newline, and the words (alphabetic ones also with a leading space).
    A listed word is one token; any other text is split into characters.

    Args:
      words: alphabetic words, tags, or runs of #, such as those of a task's prompts.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Core
    from transformers import PreTrainedTokenizerFast

    words = list(words)
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"]
    spaced = (f" {word}" for word in words if word.isalpha())
    pieces = dict.fromkeys([*_SPECIAL, "�", *characters, "user", "assistant", "system", *words, *spaced])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    core = Core(models.BPE(vocabulary, merges=[], unk_token="�", ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="�",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def load_tokenizer(source: str | Path, template: str = "") -> Tokenizer:
    """Loads the tokenizer of a local folder, GGUF file or hub id, without running code from it.

    Args:
      source: folder, GGUF file or its name in an installed package, or hub id.
      template: name or file of a chat template that replaces the tokenizer's own.

    Raises:
      ValueError: there is no tokenizer, or it has no vocabulary, chat template or end-of-sequence token.
    """
    from transformers import AutoTokenizer

    place = f"tokenizer = {str(source)!r}"
    try:
        if gguf.is_name(source):
            tokenizer = gguf.make_tokenizer(gguf.find(source))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except Exception as error:  # a damaged file makes the library raise errors of many types
        raise ValueError(f"{place}: cannot be loaded: {first_line(error)}") from error
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ValueError(f"{place}: no vocabulary; expected tokenizer.json, or vocab.json and merges.txt")
    if template:
        set_template(tokenizer, template)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{place}: no chat template; expected one in tokenizer_config.json, or chat_template.path = a file, "
            f"{' or '.join(map(repr, chat_template.NAMED))}"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{place}: no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def set_template(tokenizer: Tokenizer, name: str) -> None:
    """Gives a tokenizer the chat template of a name or file, see `chat_template.read_template`.

    A named one begins with the token that the tokenizer puts before every text, if it does so; a file says itself what it writes.
    """
    template, bos = chat_template.read_template(name), tokenizer.bos_token_id
    if name in chat_template.NAMED and bos is not None and tokenizer.encode("")[:1] == [bos]:
        template = "{{ bos_token }}" + template
    tokenizer.chat_template = template


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Returns the number of ids up to the tokenizer's last one."""
    return max(tokenizer.get_vocab().values()) + 1


def absent_ids(tokenizer: Tokenizer) -> tuple[range, ...]:
    """Returns the ids that the tokenizer does not have: gaps that its added tokens leave, and all beyond its last one."""
    edges = [-1, *sorted(set(tokenizer.get_vocab().values())), 1 << 31]
    gaps = (range(before + 1, after) for before, after in itertools.pairwise(edges))
    return tuple(ids for ids in gaps if ids)


# ---------------------------------------------------------------- messages to ids


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], **template: object) -> list[int]:
    """Returns the token ids of a conversation followed by the header of the assistant's reply.

    A control token that a message spells is encoded as ordinary text. Control tokens are the tokenizer's special tokens, and
    what else of its added tokens the template itself writes around the messages. A template without a system role gets the
    system's text before the user's. A template that asks for the date gets `date_string`, or a fixed day.

    Args:
      tokenizer: a tokenizer with a chat template.
      messages: the conversation.
      **template: arguments of the chat template, such as `enable_thinking=False` for Qwen3.

    Raises:
      ValueError: the template fails.
    """
    if any(message["role"] == "system" for message in messages) and not _has_system_role(tokenizer, template):
        messages = _without_system_role(messages)
    contents = [message["content"] for message in messages]
    added = {id: token for id, token in tokenizer.added_tokens_decoder.items() if not token.content.isspace()}
    spelled = any(token.content in content for token in added.values() for content in contents)
    frame = _render(tokenizer, [message | {"content": "x"} for message in messages], template) if spelled else ""
    control = {token.content: id for id, token in added.items() if token.special or token.content in frame}
    if not any(token in content for token in control for content in contents):
        return tokenizer.encode(_render(tokenizer, messages, template), add_special_tokens=False)

    used = set().union(tokenizer.get_chat_template(), *contents)
    start, end = itertools.islice((mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in used), 2)
    token = "|".join(map(re.escape, sorted(control, key=len, reverse=True)))
    marked = [m | {"content": re.sub(token, rf"{start}\g<0>{end}", m["content"])} for m in messages]

    def split(match: re.Match) -> str:
        """Moves the mark into the token, where it keeps the token from being one; a mark that lost its token goes."""
        return match[1][0] + start + match[1][1:] if match[1] else ""

    text = re.sub(f"{start}({token}){end}|[{start}{end}]", split, _render(tokenizer, marked, template))
    ids, before = [], ""
    for part in re.split(f"({token})", text):  # as a tokenizer does it: texts between control tokens are encoded alone
        if start in part:
            ids += tokenizer.encode(before, add_special_tokens=False) + _text_ids(tokenizer, part.split(start), control)
            before = ""
        else:
            before += part
    return ids + tokenizer.encode(before, add_special_tokens=False)


def _text_ids(tokenizer: Tokenizer, pieces: list[str], control: Mapping[str, int]) -> list[int]:
    """Returns the ids of a text, given in pieces that are cut within its control tokens, with none of these."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    ids = encode("".join(pieces))
    if not set(control.values()).isdisjoint(ids):  # `split_special_tokens` leaves added tokens that are not special
        ids = [id for piece in pieces for id in encode(piece)]
    return ids


def _render(tokenizer: Tokenizer, messages: Sequence[Message], arguments: Mapping[str, object]) -> str:
    template = tokenizer.get_chat_template()
    day = str(arguments.get("date_string", chat_template.DAY))
    try:
        text = tokenizer.apply_chat_template(
            list(messages), chat_template=chat_template.fix_day(template, day), add_generation_prompt=True,
            tokenize=False, **arguments,
        )  # fmt: skip
    except TimeoutError:
        raise
    except Exception as error:  # a template can raise anything
        raise ValueError(f"chat template: {type(error).__name__}: {' '.join(str(error).split())}") from error
    given = sum(len(message["content"]) for message in messages)
    if len(text) > LONGEST + 10 * given:  # before it is encoded, which takes far longer
        raise ValueError(
            f"chat template: it writes {len(text):,} characters for messages of {given:,}; expected at most {LONGEST:,} more"
        )
    return text


def _has_system_role(tokenizer: Tokenizer, arguments: Mapping[str, object]) -> bool:
    """Returns whether a system message reaches the prompt: some templates refuse one, others leave it out."""
    try:
        first, second = (
            _render(tokenizer, [{"role": "system", "content": text}, {"role": "user", "content": "x"}], arguments)
            for text in "ab"
        )
    except ValueError:
        return False
    return first != second


def _without_system_role(messages: Sequence[Message]) -> list[Message]:
    """Returns the messages with each system text moved to the front of the next user message."""
    rest, system = [], []
    for message in messages:
        if message["role"] == "system":
            system.append(message["content"])
            continue
        if system and message["role"] == "user":
            message, system = message | {"content": "\n\n".join([*system, message["content"]])}, []
        rest.append(message)
    return [*rest, {"role": "user", "content": "\n\n".join(system)}] if system else rest


def check_template(tokenizer: Tokenizer, arguments: Mapping[str, object], *, seconds: float = 2.0) -> list[str]:
    """Tries the chat template on short conversations; returns lines about what a user should know.

    Args:
      tokenizer: a tokenizer with a chat template.
      arguments: arguments of the template, as in the config.
      seconds: limit of the processor time.

    Raises:
      ValueError: the template fails, writes too much or does not show the user's message; an argument is misspelt, or a text
        such as "no" where a truth value is meant.
    """
    template, system = tokenizer.get_chat_template(), {"role": "system", "content": "a"}
    reserved = {"tokenizer", "messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name, value in arguments.items():
        if name in reserved - {"tools", "documents"}:
            raise ValueError(f"chat_template.{name} = {value!r}: expected an argument that the template itself reads")
        if (
            isinstance(value, str) and value.strip().lower() in _WORDS
        ):  # a template takes any text for true, or for neither
            raise ValueError(f"chat_template.{name} = {value!r}: a text; expected the value True or False")
    with chat_template.limits(seconds):
        for before in ([], [system]):
            first, second = (
                chat_ids(tokenizer, [*before, {"role": "user", "content": text}], **arguments) for text in "ab"
            )
            if first == second:
                raise ValueError("chat template: the user's message does not reach the prompt")
    lines, known = [], chat_template.arguments(template)
    for name, value in arguments.items():
        if name not in known:
            line = f"chat_template.{name} = {value!r}: the chat template reads no such variable"
            if difflib.get_close_matches(name, known, n=1, cutoff=0.75):
                raise ValueError(f"{line}; {nearest(name, known)}")
            lines.append(f"{line}; it reads {', '.join(sorted(known)) or 'none'}")
    if chat_template.writes_day(template) and "date_string" not in arguments:
        lines.append(f"the chat template writes a date: {chat_template.DAY}; chat_template.date_string sets another")
    return lines


# ---------------------------------------------------------------- ids to text


def token_texts(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """Returns the text of each token, special tokens included; together they are the text of all.

    A character that is split over tokens is shown at the last of them.
    """
    tokens = [int(token) for token in tokens]

    def decode(start: int, end: int) -> str:
        return tokenizer.decode(tokens[start:end], skip_special_tokens=False)

    texts = [decode(i, i + 1) for i in range(len(tokens))]
    if "".join(texts) == decode(0, len(tokens)):
        return texts
    # Tokens are decoded after those of the text before, since some decoders treat the first token of a text differently.
    before, start = 0, 0  # begin of the text before, and of the tokens that are not yet shown
    for i in range(len(tokens)):
        shown, text = decode(before, start), decode(before, i + 1)
        last = i + 1 == len(tokens)
        joins = not last and text.endswith("�") and decode(start, i + 2) != decode(start, i + 1) + decode(i + 1, i + 2)
        texts[i] = "" if joins else text[len(shown) :]
        if not joins:
            before, start = start, i + 1
    return texts
