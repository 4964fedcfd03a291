"""Parses generated text into a usable reflection, or the reason why it is unusable."""

import re
from collections.abc import Callable

TAGS = {True: "hint", False: "critique"}  # by whether the attempt was correct
WRITTEN = ("truncated", "no_tag", "empty", "leak")  # why a text that was written is unusable
STATUSES = (
    "ok", "not_needed", *WRITTEN, "no_room", "no_peer", "no_reference", "no_feedback", "no_partner",
)  # fmt: skip


def close_tag(text: str, kind: str, *, finished: bool, cut: bool) -> str:
    """Returns a text that opens the tag of its kind and does not close it with the closing tag; other texts as they are.

    Args:
      text: the generated text.
      kind: "hint" or "critique".
      finished: whether the end of the text is that of the reflection.
      cut: whether the text was cut, and the reflection is its whole sentences.
    """
    opened = text.rfind(f"<{kind}>")
    if opened < 0 or f"</{kind}>" in text[opened:]:
        return text
    if finished:
        return f"{text}</{kind}>"
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s)", text[opened:])] if cut else []
    return f"{text[: opened + ends[-1]]}</{kind}>" if ends else text


def parse(text: str, kind: str, *, finished: bool, states_answer: Callable[[str], bool]) -> tuple[str, str]:
    """Returns the content of the last `<kind>...</kind>` of a text, since a policy may mention the tags before it uses them.

    Args:
      text: the generated text.
      kind: "hint" or "critique".
      finished: whether generation ended with a stop token, not at the length limit.
      states_answer: whether a text states the gold answer, as the task tells; a usable reflection does not.

    Returns:
      (reflection, status): the text inside the tags and "ok", or what was written and the reason why it is unusable, one of
      `STATUSES`. An unusable reflection leaves the row's credit unchanged (our choice).
    """
    opening, closing = f"<{kind}>", f"</{kind}>"
    start = text.rfind(opening, 0, max(text.rfind(closing), 0))
    if start < 0:
        return text.strip(), "no_tag" if finished else "truncated"
    start += len(opening)
    body = text[start : text.find(closing, start)].strip()
    if not body:
        return "", "empty"
    if states_answer(body):
        return body, "leak"
    return body, "ok"
