"""Multiple-choice verifier: reads the answer tag strictly, and other common forms leniently."""

import re
from collections.abc import Sequence

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks.compat import choice_score
from amrsd_jax.tasks.thoughts import after_thoughts

LETTERS = tuple("ABCDEFGHIJ")
SCORES = ("lenient", "compat")  # names of every verdict's further scores
TAIL = 100_000  # the answer is searched in this many characters at the end of a response, our choice

_OPTION = re.compile(r"^[ \t]*\(?([A-J])[):.][ \t]*(?=\S)", re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)

# The lenient reading: each pattern finds candidates, and the candidate that ends last is used.
_LETTER = r"(?:\\(?:text|mathrm|mathbf|textbf)\s*\{\s*)?[*_`$]*\(?\s*([A-Ja-j])\s*\)?[*_`$]*\}?"
_ONLY = re.compile(rf"\s*(?:option|choice|answer)?\s*:?\s*{_LETTER}\s*(?:[.:)]\s*.*)?\s*", re.IGNORECASE | re.DOTALL)
_INSIDE = re.compile(r"<answer>((?:(?!</?answer>).)*)(?:</answer>|\Z)|\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", re.DOTALL)
_SAID = re.compile(  # runs of white space are bounded, so that matching time is linear
    r"\b(?:answer|choice|option)\b(?:\s{1,5}(?:is|would\s{1,5}be|must\s{1,5}be|should\s{1,5}be)\b)?\s{0,5}:?\s{0,5}"
    r"(?:(?:option|choice|letter)\s{0,5}:?\s{0,5})?[*_`\s]{0,9}"
    r"(?:(?-i:\(\s{0,5}([A-Ja-j])\s{0,5}\))|\\boxed\s{0,5}\{([A-J])\}|(?-i:([A-J]))(?![A-Za-z0-9'’]))"
    r"[*_`$]{0,9}(?=(?P<rest>[^\n]{0,40}))",
    re.IGNORECASE,
)
_SECOND_LETTER = re.compile(r"[)\s]*[,/&]\s*\(?[A-J]\b|\b(?:or|and)\s+\(?[A-J]\b")
_HEDGE = re.compile(
    r"\s*(?:\bor\b|\band\b|/|&|,\s*\(?[A-J]\)?(?![A-Za-z])|\?|\bis (?:not|wrong|incorrect)\b)", re.IGNORECASE
)
_CLEAR = re.compile(
    r"\s*(?:$|[.,;:)\]}*<\"]|\b(?:because|since|as|which|with)\b|is\s+(?:the\s+)?(?:correct|right|best)\b)",
    re.IGNORECASE,
)


def verify_choice(gold: str, response: str, labels: Sequence[str] = LETTERS, *, form: str = "row") -> Verdict:
    """Returns the verdict: reward 1 if the last answer tag holds exactly the gold letter, else 0.

    Its further scores are `lenient`, 1 for the gold letter in a tag, a box, "the answer is (C)" or alone on the last line, and
    `compat`, the published exact match.

    Args:
      gold: a letter.
      response: the whole response.
      labels: letters of the row's options.
      form: "row" requires the tag; with "any" the lenient reading decides the reward.
    """
    strict, named = tagged(response), lenient(response, labels)
    format_ok = strict in labels
    scores = {"lenient": float(named == gold), "compat": choice_score(gold, response)}
    parsed = strict if form == "row" else named
    if parsed == gold and parsed in labels:
        return Verdict(1.0, "correct", parsed, format_ok, scores)
    if parsed in labels:
        return Verdict(0.0, "the answer is wrong", parsed, format_ok, scores)
    if parsed is None:
        message = "no <answer>...</answer> was found" if form == "row" else "no option was named"
        return Verdict(0.0, message, None, False, scores)
    message = f"the answer tag holds something else than one of {', '.join(labels)}"
    return Verdict(0.0, message, parsed[:200], False, scores)


def tagged(response: str) -> str | None:
    """Returns the stripped content of the last closed answer tag, None without one."""
    contents = _TAG.findall(response[-TAIL:])
    return contents[-1].strip() if contents else None


def lenient(response: str, labels: Sequence[str] = LETTERS) -> str | None:
    """Returns the option that a response names last, in any common form; None if it names none, or several at that place."""
    text = after_thoughts(response)[-TAIL:]
    candidates = [(m.end(), _only_letter(m[1] if m[1] is not None else m[2])) for m in _INSIDE.finditer(text)]
    for m in _SAID.finditer(text):
        letter = (m[1] or m[2] or m[3]).upper()
        clear = not _HEDGE.match(m["rest"]) and (m[3] is None or _CLEAR.match(m["rest"]))
        candidates.append((m.start("rest"), letter if clear else None))
    lines = text.strip().splitlines()
    if lines and (letter := _only_letter(lines[-1], bare=True)):
        candidates.append((len(text), letter))
    letter = max(candidates, key=lambda pair: pair[0])[1] if candidates else None
    return letter if letter in labels else None


def _only_letter(text: str, *, bare: bool = False) -> str | None:
    """Returns the letter that a text consists of, as in `C`, `(c)`, `C. because`, `\\text{C}`; None for other text.

    Args:
      bare: the text is a line without a tag or box, where a lower-case letter needs brackets.
    """
    match = _ONLY.fullmatch(text[:1000])
    if not match or _SECOND_LETTER.search(text[: match.end(1) + 20][match.end(1) :]):
        return None
    if bare and match[1].islower() and f"({match[1]})" not in text:
        return None
    return match[1].upper()


def option_labels(question: str) -> tuple[str, ...]:
    """Returns the letters of the options that a question lists, one per line: the last run A, B, C, ...; all ten if none."""
    runs: list[list[str]] = []
    for letter in _OPTION.findall(question):
        if letter == "A":
            runs.append(["A"])
        elif runs and len(runs[-1]) < len(LETTERS) and letter == LETTERS[len(runs[-1])]:
            runs[-1].append(letter)
    runs = [run for run in runs if len(run) > 1]
    return tuple(runs[-1]) if runs else LETTERS


def stem(question: str) -> str:
    """Returns a question without its options."""
    first = _OPTION.search(question)
    return question[: first.start()] if first else question


def in_form(letter: str) -> str:
    """Writes a letter in the form that the prompt asks for."""
    return f"<answer>\n{letter}\n</answer>"
