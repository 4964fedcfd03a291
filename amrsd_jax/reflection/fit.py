"""Prompts that must fit a fixed length: the replaceable text is shortened, the closing instruction never."""

from collections.abc import Callable

from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids

_MARK = "@@"  # stands for the replaceable text when only what follows it is wanted


def fit(
    tokenizer: Tokenizer,
    build: Callable[[str], list[Message]],
    text: str,
    limit: int,
    **template: object,
) -> list[int] | None:
    """Ids of the conversation `build(text)` in at most `limit` tokens, with the end of `text` cut off as far as needed.

    What `build` puts around the text, the closing instruction and the assistant's header among it, is always whole.
    None if it does not fit even with the text empty.
    """
    pieces = tokenizer.encode(text, add_special_tokens=False)
    keep = len(pieces)
    while True:
        shown = text if keep == len(pieces) else tokenizer.decode(pieces[:keep])
        ids = chat_ids(tokenizer, build(shown), **template)
        excess = len(ids) - limit
        if excess <= 0:
            return ids
        if keep == 0:
            return None
        keep = max(0, keep - excess)


def check_tail(tokenizer: Tokenizer, build: Callable[[str], list[Message]], ids, **template: object) -> None:
    """Raises ValueError unless a prompt ends with all that `build` and the chat template put after the text.

    Compared as text: a token may span the end of the replaceable text and the beginning of the tail.
    """
    marked = tokenizer.decode(chat_ids(tokenizer, build(_MARK), **template))
    tail = marked.rpartition(_MARK)[2]
    if not tokenizer.decode(ids).endswith(tail):
        raise ValueError(f"prompt ends {tokenizer.decode(ids[-40:])!r}; expected the closing instruction {tail!r}")
