"""Final answers in mathematics: found in the last box, after the last `####`, or on the last line; compared as text or number."""

import re
from fractions import Fraction

from amrsd_jax.tasks.base import Verdict

# Not inside a word or another number; a minus after one of these is a subtraction, not a sign.
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:/\d+)?|\.\d+)", re.ASCII)
_BRACE = re.compile(r"(?:\\boxed\s*)?\{|\}")


def verify_mathematics(gold: str, response: str) -> Verdict:
    """Reward 1 if the response's final answer equals the gold one as normalised text or as an exact number, else 0.

    Symbolic equality (0.5 against one half under a root, intervals, sets) is not attempted: such an answer scores 0.
    """
    parsed, format_ok = final_answer(response)
    if parsed is None:
        return Verdict(0.0, "no final answer was found", None, False)
    if _same(parsed, gold):
        return Verdict(1.0, "correct", parsed, format_ok)
    return Verdict(0.0, "the final answer is wrong", parsed, format_ok)


def final_answer(response: str) -> tuple[str | None, bool]:
    """(answer, whether it stood in an asked-for form): the last balanced `\\boxed{}`, else after the last `####`, else the
    last number of the last line."""
    box = _last_box(response)
    if box is not None:
        return box, True
    _, mark, tail = response.rpartition("####")
    if mark and tail.strip():
        return tail.strip().split("\n")[0], True
    lines = response.strip().splitlines()
    found = numbers(lines[-1]) if lines else []
    return (found[-1], False) if found else (None, False)


def numbers(text: str) -> list[str]:
    """The numbers that a text states, in its order, without thousands separators and with LaTeX fractions as a/b."""
    return _NUMBER.findall(_plain(text))


def number(answer: str) -> Fraction | None:
    """The exact value of an answer that is a number, None of any other."""
    text = _normal(answer)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):  # 1.5/2, more digits than Python reads; 1/0
        return None


def _last_box(text: str) -> str | None:
    """The content of the balanced box that begins last; one pass, however many boxes a looping response opens."""
    opened, boxes = [], []
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (start := opened.pop())[0] != "{":
            boxes.append((start.end(), brace.start()))
    return text[slice(*max(boxes))] if boxes else None


def _same(a: str, b: str) -> bool:
    return _normal(a) == _normal(b) or ((x := number(a)) is not None and x == number(b))


def _normal(text: str) -> str:
    return _plain(re.sub(r"\\(?:left|right|,|;|!|\$|%)|[$%\s]", "", text)).rstrip(".")


def _plain(text: str) -> str:
    # A whole number before a fraction makes it a mixed number, which a/b would misread.
    text = re.sub(r"(?<!\d)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
