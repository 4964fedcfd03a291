"""Fits a prompt into a fixed length by shortening a text within it, never the instruction at its end."""

from collections.abc import Callable

from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids


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
