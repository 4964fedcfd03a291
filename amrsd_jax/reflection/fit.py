"""Fits a prompt into a fixed length by shortening a text within it, never the instruction at its end."""

from collections.abc import Callable, Sequence

from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids

_MARK = "@@"  # stands for the text, to find what follows it


def fit(
    tokenizer: Tokenizer,
    build: Callable[[str], list[Message]],
    text: str,
    limit: int,
    **template: object,
) -> list[int] | None:
    """Returns the token ids of the conversation `build(text)` in at most `limit` tokens.

    The end of `text` is cut off as far as needed; everything that `build` and the chat template put around it stays whole.
    The result is None if the conversation does not fit even with an empty text.
    """
    tokens = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)  # as `chat_ids` encodes it
    keep = len(tokens)
    while True:
        shortened = text if keep == len(tokens) else tokenizer.decode(tokens[:keep])
        ids = chat_ids(tokenizer, build(shortened), **template)
        excess = len(ids) - limit
        if excess <= 0:
            return ids
        if keep == 0:
            return None
        keep = max(0, keep - excess)


def check_tail(
    tokenizer: Tokenizer, build: Callable[[str], list[Message]], ids: Sequence[int], **template: object
) -> None:
    """Checks that a prompt ends with everything that `build` and the chat template put after the text.

    Strings are compared, not ids, since one token can span the end of the text and the start of what follows.

    Raises:
      ValueError: the prompt has another end.
    """
    marked = tokenizer.decode(chat_ids(tokenizer, build(_MARK), **template))
    tail = marked.rpartition(_MARK)[2]
    if not tokenizer.decode(ids).endswith(tail):
        raise ValueError(f"prompt ends {tokenizer.decode(ids[-40:])!r}; expected the closing instruction {tail!r}")
