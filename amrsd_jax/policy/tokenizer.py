"""Tokenizers: the embedded tasks' own, or any Hugging Face folder; chat messages to token ids."""

import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# A tag, a run of letters with the space before it, a run of #, or one character: digits are always alone.
_PIECES = r"</?[a-z]+>| ?[A-Za-z]+|#+|[\s\S]"


@runtime_checkable
class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer: these methods, and `eos_token_id`.

    `transformers` itself is imported where a tokenizer is made: it takes seconds, and brings PyTorch where that is installed.
    """

    def __len__(self) -> int:
        """Number of entries."""

    def encode(self, text: str, **how: Any) -> list[int]:
        """Ids of a text."""

    def decode(self, token_ids: Any, **how: Any) -> str:
        """Text of ids."""

    def apply_chat_template(self, conversation: Any, **how: Any) -> Any:
        """Messages as one text."""

    def get_vocab(self) -> dict[str, int]:
        """Entries and their ids."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Writes a folder that `load_tokenizer` reads."""


def embedded_tokenizer(words: Iterable[str]) -> Tokenizer:
    """A small byte-pair tokenizer made by construction, not by training: the same ids in every process.

    Its vocabulary is the printable ASCII characters, a newline, and the given words (those of letters also with a space
    before them); a word that is listed is one token, anything else falls apart into characters.

    Args:
      words: what deserves a token of its own, e.g. in a task's prompts: letters, a tag, or a run of #.
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


def load_tokenizer(source: str | Path) -> Tokenizer:
    """Tokenizer of a local folder or hub id. No remote code is run.

    Raises:
      ValueError: it has no chat template or no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ValueError(f"tokenizer {source}: no chat template; expected one in tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"tokenizer {source}: no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], **template: object) -> list[int]:
    """Ids of a conversation followed by the assistant's header, ready to be answered.

    Args:
      tokenizer: with a chat template.
      messages: the conversation.
      **template: passed to the chat template, e.g. `enable_thinking=False` for Qwen3.
    """
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **template)
    return tokenizer.encode(text, add_special_tokens=False)


def token_texts(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """The text of each token alone, as a person should see it."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
