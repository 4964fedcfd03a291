"""Thinking aloud: what a response says after its `<think>...</think>`, which is all that another reader is shown.

Solutions of siblings, right or wrong, and everything the policy or a critic writes for a teacher are shown without it: a
thought may hold the answer, is many times longer than the solution, and is no solution (the published SDPO code can cut it
too). The attempt that a reflection is about keeps its thoughts, for they are what went right or wrong.
"""

from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids

_OPEN, _CLOSE = "<think>", "</think>"


def without_thinking(text: str, opened: bool = False) -> str:
    """What follows the last thought, as the verifiers read a response; "" if that thought never ends.

    Args:
      text: a response.
      opened: whether its prompt had already opened a thought, as some chat templates do.
    """
    said = (_OPEN * opened + text).rpartition(_CLOSE)[2].partition(_OPEN)[0]
    return said if said == text else said.strip()


def opens_thinking(tokenizer: Tokenizer, **template: object) -> bool:
    """Whether the chat template opens a thought before the response begins."""
    header = tokenizer.decode(chat_ids(tokenizer, [{"role": "user", "content": ""}], **template))
    return _OPEN in header.rpartition(_CLOSE)[2]
