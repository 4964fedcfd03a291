"""Separates the thoughts of a response, `<think>...</think>`, from the reply.

Verifiers judge the reply alone, and siblings' responses and the texts that a policy or a critic writes are shown without
thoughts. A thought can state the answer, is many times longer than the solution, and is not a solution.
"""

OPEN, CLOSE = "<think>", "</think>"


def after_thoughts(response: str, opened: bool = False) -> str:
    """Returns the reply: what follows the last closed thought and precedes a thought that is cut off; "" if there is nothing.

    Args:
      response: a response.
      opened: whether its prompt opened a thought, as some chat templates do.
    """
    text = OPEN * opened + response
    visible = text[slice(*reply_span(text))]
    return visible if visible == response else visible.strip()


def reply_span(response: str) -> tuple[int, int]:
    """Returns where the reply of `after_thoughts` starts and ends, with white space around it."""
    start = len(response) - len(response.rpartition(CLOSE)[2])
    end = response.find(OPEN, start)
    return start, end if end >= 0 else len(response)


def inside_thought(prompt: str) -> bool:
    """Returns whether a prompt ends inside a thought, so that the response begins in one."""
    return OPEN in prompt.rpartition(CLOSE)[2]
