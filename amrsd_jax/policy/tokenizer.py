"""Makes tokenizers (a small one for the embedded tasks, or any of Hugging Face) and encodes chat messages."""

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
# A tag, a run of letters with a leading space, a run of #, or one character, so that every digit is a token.
_PIECES = r"</?[a-z]+>| ?[A-Za-z]+|#+|[\s\S]"


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used: these methods, and `eos_token_id`.

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


def load_tokenizer(source: str | Path) -> Tokenizer:
    """Loads the tokenizer of a local folder or hub id, without running code from it.

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
    """Returns the token ids of a conversation followed by the header of the assistant's reply.

    Args:
      tokenizer: a tokenizer with a chat template.
      messages: the conversation.
      **template: arguments of the chat template, such as `enable_thinking=False` for Qwen3.
    """
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **template)
    return tokenizer.encode(text, add_special_tokens=False)


def token_texts(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """Returns the text of each token decoded by itself, special tokens included."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
