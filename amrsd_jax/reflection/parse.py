"""Parses generated text into a usable reflection, or the reason why it is unusable."""

import re

from amrsd_jax.tasks.mathematics import number, numbers

TAGS = {True: "hint", False: "critique"}  # by whether the attempt was correct
STATUSES = (
    "ok", "not_needed", "truncated", "no_tag", "empty", "leak", "no_room", "no_peer", "no_reference", "no_feedback", "no_partner",
)  # fmt: skip


def parse(text: str, kind: str, answer: str, *, finished: bool) -> tuple[str, str]:
    """Returns the content of the last `<kind>...</kind>` of a text, since a policy may mention the tags before it uses them.

    Args:
      text: the generated text.
      kind: "hint" or "critique".
      answer: the gold answer, which a usable reflection does not state.
      finished: whether generation ended with a stop token, not at the length limit.

    Returns:
      (reflection, status): the text inside the tags and "ok", or "" and the reason, one of `STATUSES`. An unusable reflection
      leaves the row's credit unchanged (our choice).
    """
    match = re.match(rf".*<{kind}>(.*?)</{kind}>", text, flags=re.DOTALL)
    if match is None:
        return "", "no_tag" if finished else "truncated"
    body = match[1].strip()
    if not body:
        return "", "empty"
    if states_answer(body, answer):
        return "", "leak"
    return body, "ok"


def states_answer(text: str, answer: str) -> bool:
    """Returns whether a text states the answer as a word or number of its own.

    A number matches every spelling of its value (1,234 and 1234, 5 and 5.0, 1/2 and 0.5). A single letter, the answer to a
    multiple-choice question, matches only where it is named as a choice: `(B)`, `answer B`, `option B is`. Anything else
    matches regardless of case and spacing.
    """
    answer = "".join(answer.split())
    if not answer:
        return False
    if re.fullmatch(r"[A-Za-z]", answer):
        stated = rf"\(\s*{answer}\s*\)|\\boxed\{{{answer}\}}|\b(?:answer|option|choice)\b\W*(?:is\b\W*)?{answer}\b"
    elif (value := number(answer)) is not None:
        return value in map(number, numbers(text))
    else:
        stated = r"(?<!\w)" + r"\s*".join(map(re.escape, answer)) + r"(?!\w)"
    return re.search(stated, text, flags=re.IGNORECASE) is not None
