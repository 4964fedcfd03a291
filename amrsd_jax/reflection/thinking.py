"""Removes thoughts, `<think>...</think>`, from responses that become part of a prompt.

Siblings' responses, and texts that the policy or a critic writes for the teacher, are shown without thoughts: a thought can
state the answer, is many times longer than the solution, and is not a solution (the published SDPO code has an option for
this). An attempt that is reflected on keeps its thoughts, because the mistake may be in them.
"""

from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids

_OPEN, _CLOSE = "<think>", "</think>"


def without_thinking(text: str, opened: bool = False) -> str:
    """Returns the text after the last complete thought and before a thought that is cut off, as verifiers read it.

    Args:
      text: a response.
      opened: whether its prompt opened a thought, as some chat templates do.
    """
    visible = (_OPEN * opened + text).rpartition(_CLOSE)[2].partition(_OPEN)[0]
    return visible if visible == text else visible.strip()


def opens_thinking(tokenizer: Tokenizer, **template: object) -> bool:
    """Returns whether the chat template opens a thought before the response begins."""
    header = tokenizer.decode(chat_ids(tokenizer, [{"role": "user", "content": ""}], **template))
    return _OPEN in header.rpartition(_CLOSE)[2]
