"""Multiple choice: the letter in the wanted form, and a lenient reading beside it."""

import re
from collections.abc import Sequence

from amrsd_jax.tasks.base import Verdict
from amrsd_jax.tasks.compat import choice_score

LETTERS = tuple("ABCDEFGHIJ")
TAIL = 100_000  # characters at the end of a response in which its answer must stand, our choice

_OPTION = re.compile(r"^[ \t]*\(?([A-J])[):.][ \t]*(?=\S)", re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)

# The lenient reading: each pattern finds candidates, and the one that ends last counts.
_LETTER = r"(?:\\(?:text|mathrm|mathbf|textbf)\s*\{\s*)?[*_`$]*\(?\s*([A-Ja-j])\s*\)?[*_`$]*\}?"
_ONLY = re.compile(rf"\s*(?:option|choice|answer)?\s*:?\s*{_LETTER}\s*(?:[.:)]\s*.*)?\s*", re.IGNORECASE | re.DOTALL)
_INSIDE = re.compile(r"<answer>((?:(?!</?answer>).)*)(?:</answer>|\Z)|\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.DOTALL)
_SAID = re.compile(  # with bounded runs of white space, so that a flood of it takes no time
    r"\b(?:answer|choice|option)\b(?:\s{1,5}(?:is|would\s{1,5}be|must\s{1,5}be|should\s{1,5}be)\b)?\s{0,5}:?\s{0,5}"
    r"(?:(?:option|choice|letter)\s{0,5}:?\s{0,5})?[*_`\s]{0,9}"
    r"(?:(?-i:\(\s{0,5}([A-Ja-j])\s{0,5}\))|\\boxed\s{0,5}\{([A-J])\}|(?-i:([A-J]))(?![A-Za-z0-9'’]))"
    r"[*_`$]{0,9}(?=(?P<rest>[^\n]{0,40}))",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\s*(?:\bor\b|\band\b|/|&|,\s*\(?[A-J]\)?(?![A-Za-z])|\?|\bis (?:not|wrong|incorrect)\b)", re.IGNORECASE
)
_CLEAR = re.compile(
    r"\s*(?:$|[.,;:)\]}*<\"]|\b(?:because|since|as|which|with)\b|is\s+(?:the\s+)?(?:correct|right|best)\b)",
    re.IGNORECASE,
)


def verify_choice(gold: str, response: str, labels: Sequence[str] = LETTERS, *, form: str = "row") -> Verdict:
    """Reward 1 if the last answer tag holds exactly the gold letter.

    Args:
      gold: a letter.
      response: what is judged.
      labels: letters of the row's options.
      form: "row", the tag as it is asked for; "any", the lenient reading is the reward.

    Further scores: `lenient`, a letter in a tag, a box, "the answer is (C)" or alone on the last line; `compat`, the
    published exact match.
    """
    strict, said = tagged(response), lenient(response, labels)
    format_ok = strict in labels
    scores = {"lenient": float(said == gold), "compat": choice_score(gold, response)}
    parsed = strict if form == "row" else said
    if parsed == gold and parsed in labels:
        return Verdict(1.0, "correct", parsed, format_ok, scores)
    if parsed in labels:
        return Verdict(0.0, "the answer is wrong", parsed, format_ok, scores)
    if parsed is None:
        return Verdict(
            0.0, "no <answer>...</answer> was found" if form == "row" else "no option was named", None, False, scores
        )
    one = f"{', '.join(labels)}"
    return Verdict(0.0, f"the answer tag holds something else than one of {one}", parsed[:200], False, scores)


def tagged(response: str) -> str | None:
    """What the last closed answer tag holds, without the space around it."""
    found = _TAG.findall(response[-TAIL:])
    return found[-1].strip() if found else None


def lenient(response: str, labels: Sequence[str] = LETTERS) -> str | None:
    """The option that a response names last, in any common form; None if it names none, or more than one there."""
    text = (said if (said := response.rpartition("</think>")[2]).strip() else response)[-TAIL:]
    found = [(m.end(), _only_letter(m[1] if m[1] is not None else m[2])) for m in _INSIDE.finditer(text)]
    for m in _SAID.finditer(text):
        letter = (m[1] or m[2] or m[3]).upper()
        clear = not _HEDGE.match(m["rest"]) and (m[3] is None or _CLEAR.match(m["rest"]))
        found.append((m.start("rest"), letter if clear else None))
    lines = text.strip().splitlines()
    if lines and (letter := _only_letter(lines[-1], bare=True)):
        found.append((len(text), letter))
    letter = max(found, key=lambda pair: pair[0])[1] if found else None
    return letter if letter in labels else None


def _only_letter(text: str, *, bare: bool = False) -> str | None:
    """The letter that a text consists of: `C`, `(c)`, `C. because`, `\\text{C}`; alone on a line, only a capital or `(c)`."""
    found = _ONLY.fullmatch(text[:1000])
    if not found or re.search(
        r"[)\s]*[,/&]\s*\(?[A-J]\b|\b(?:or|and)\s+\(?[A-J]\b", text[: found.end(1) + 20][found.end(1) :]
    ):
        return None
    if bare and found[1].islower() and f"({found[1]})" not in text:
        return None
    return found[1].upper()


def option_labels(question: str) -> tuple[str, ...]:
    """Letters of the options that a question lists, one a line: the last run A, B, C, ...; all ten if it lists none."""
    runs: list[list[str]] = []
    for letter in _OPTION.findall(question):
        if letter == "A":
            runs.append(["A"])
        elif runs and len(runs[-1]) < len(LETTERS) and letter == LETTERS[len(runs[-1])]:
            runs[-1].append(letter)
    runs = [run for run in runs if len(run) > 1]
    return tuple(runs[-1]) if runs else LETTERS


def stem(question: str) -> str:
    """A question without its options."""
    first = _OPTION.search(question)
    return question[: first.start()] if first else question


def in_form(letter: str) -> str:
    """An answer as a row wants it."""
    return f"<answer>\n{letter}\n</answer>"
