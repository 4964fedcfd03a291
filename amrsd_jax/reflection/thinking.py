"""Tells whether a chat template begins a response inside a thought."""

from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids
from amrsd_jax.tasks.thoughts import inside_thought


def opens_thinking(tokenizer: Tokenizer, **template: object) -> bool:
    """Returns whether the chat template opens a thought before the response begins."""
    return inside_thought(tokenizer.decode(chat_ids(tokenizer, [{"role": "user", "content": ""}], **template)))
