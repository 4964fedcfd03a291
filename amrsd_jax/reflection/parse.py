"""From what the policy wrote to a reflection that may be used, or the reason why it may not."""

import re

from amrsd_jax.tasks.mathematics import number, numbers

TAGS = {True: "hint", False: "critique"}  # by whether the attempt was correct
STATUSES = (
    "ok", "not_needed", "truncated", "no_tag", "empty", "leak", "no_room", "no_peer", "no_reference", "no_partner",
)  # fmt: skip


def parse(text: str, kind: str, answer: str, *, finished: bool) -> tuple[str, str]:
    """Reads the last `<kind>...</kind>`: a policy that thinks aloud may name the tags before it uses them.

    Args:
      text: what was generated.
      kind: "hint" or "critique".
      answer: the gold answer, which a usable reflection does not state.
      finished: whether generation ended by itself, not by length.

    Returns:
      (reflection, status): the text inside the tags, "" unless status is "ok"; otherwise status says why it is unusable.
      An unusable reflection gives its row no extra credit (our choice).
    """
    found = re.match(rf".*<{kind}>(.*?)</{kind}>", text, flags=re.DOTALL)
    if found is None:
        return "", "no_tag" if finished else "truncated"
    body = found[1].strip()
    if not body:
        return "", "empty"
    if states_answer(body, answer):
        return "", "leak"
    return body, "ok"


def states_answer(text: str, answer: str) -> bool:
    """Whether a text states the answer, standing alone.

    A number matches in every spelling of its value (1,234 and 1234, 5 and 5.0, 1/2 and 0.5), anything else whatever its
    case and spacing. A single letter, the answer to a multiple-choice question, counts only where it is named as a
    choice: `(B)`, `answer B`, `option B is`.
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
