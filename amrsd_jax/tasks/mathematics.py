"""Final answers in mathematics: where they stand in a response, and whether they equal the gold one.

Text and exact numbers decide most cases here; `tasks.symbolic` decides the others, in processes that can be killed.
"""

import functools
import json
import os
import re
from fractions import Fraction
from pathlib import Path

from amrsd_jax.tasks import symbolic
from amrsd_jax.tasks.arithmetic import value
from amrsd_jax.tasks.base import Verdict
from amrsd_jax.tasks.workers import Pool

SECONDS = 20.0  # wall time of one question to a worker, our choice; its own limit of processor time comes first
TAIL = 100_000  # characters at the end of a response in which its final answer must stand, our choice
APART = 1e-3  # relative difference of values that are surely different, our choice
LONGEST = 1_000  # characters of an answer that is given to a worker, our choice; benchmarks' gold ones have 224 at most

# Not inside a word or another number, nor an exponent; a minus after one of these is a subtraction, not a sign.
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:/\d+)?|\.\d+)", re.ASCII)
_EXPONENT = re.compile(r"[\^_]-?(?:\d+|\{[^{}]*\})")
_BRACE = re.compile(r"(?:\\f?box(?:ed)?\s*)?\{|\}")
_SEPARATOR = re.compile(r"(?:[\s$.,;:()\[\]\\]|\\(?:quad|qquad|text\s*\{\s*(?:and|or)\s*\})|and|or)*")
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]")
_STATED = re.compile(
    r"\b(?:answer|result|solution)s?\b[^\n.:=]{0,40}?(?:\bis\b|\bare\b|:|=)[\s*:]*([^\n]+)", re.IGNORECASE
)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_COUNTED = re.compile(r"\\?\$?\s*([-\d.,/]+)\s*((?:[A-Za-z]{3,}[\s.]*)(?:[A-Za-z]+[\s.]*){0,3})", re.ASCII)
_NO_UNIT = {
    *("and", "or", "to", "not", "no", "more", "less", "fewer", "than", "if", "is", "wrong"),
    *("pi", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "mod", "inf"),
}


def verify_mathematics(gold: str, response: str, *, form: str = "row") -> Verdict:
    """Reward 1 if the response's final answer equals the gold one, as text, as a number or as an expression, else 0.

    Args:
      gold: the answer, in LaTeX or plain.
      response: what is judged.
      form: where the answer may stand, "row" (see `final_answer`) or "any" (see `any_answer`).
    """
    parsed, format_ok = final_answer(response) if form == "row" else any_answer(response)
    return judge(gold, parsed, format_ok)


def judge(gold: str, answer: str | None, format_ok: bool = True) -> Verdict:
    """The verdict on an answer that was read."""
    if answer is None:
        return Verdict(0.0, "no final answer was found", None, False)
    found = compare(gold, answer)
    if found == symbolic.EQUAL:
        return Verdict(1.0, "correct", answer, format_ok)
    if found == symbolic.LATE:
        return Verdict(0.0, "comparing the final answer timed out", answer, format_ok)
    return Verdict(0.0, "the final answer is wrong", answer, format_ok)


# ---------------------------------------------------------------- reading


def final_answer(response: str) -> tuple[str | None, bool]:
    """(answer, whether it stood in an asked-for form): the last balanced `\\boxed{}`, else after the last `####`, else on the
    last line: its last formula if it has one, else its last number.

    Boxes with nothing but separators between them are one answer, with commas.
    """
    response = _after_thought(response)[-TAIL:]
    box = _last_boxes(response)
    if box is not None:
        return box, True
    _, mark, tail = response.rpartition("####")
    if mark and tail.strip():
        return tail.strip().split("\n")[0], True
    lines = response.strip().splitlines()
    return (_of_line(lines[-1]), False) if lines else (None, False)


def any_answer(response: str) -> tuple[str | None, bool]:
    """As `final_answer`, and before its last line: the last `<answer>` tag, or what the last sentence of the kind "the answer
    is ..." states."""
    answer, asked_for = final_answer(response)
    if asked_for:
        return answer, True
    response = _after_thought(response)[-TAIL:]
    if tags := _TAG.findall(response):
        return tags[-1].strip() or None, True
    if stated := _STATED.findall(response):
        return _of_sentence(stated[-1]), False
    return answer, False


def _after_thought(response: str) -> str:
    said = response.rpartition("</think>")[2]
    return said if said.strip() else response


def _last_boxes(text: str) -> str | None:
    """The content of the balanced box that begins last, after those that only separators divide from it.

    One pass, however many boxes a looping response opens.
    """
    opened, boxes = [], []
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (start := opened.pop())[0] != "{":
            boxes.append((start.start(), start.end(), brace.start()))
    if not boxes:
        return None
    boxes.sort()
    start, inside, end = boxes.pop()
    found = [text[inside:end]]
    while boxes and boxes[-1][2] < start and _SEPARATOR.fullmatch(text[boxes[-1][2] + 1 : start][:100]):
        start, inside, end = boxes.pop()
        if text[inside:end] not in found:
            found.insert(0, text[inside:end])
    return ", ".join(found)


def _of_line(line: str) -> str | None:
    formulas = _formulas(line)
    if formulas:
        return formulas[-1]
    found = numbers(_EXPONENT.sub("", line) if "\\" not in line else line)
    return found[-1] if found else None


def _of_sentence(text: str) -> str | None:
    """What a sentence states: its formula, its only number, or all of it."""
    if formulas := _formulas(text):
        return formulas[-1] if len(formulas) == 1 else ", ".join(formulas)
    text = re.split(r"(?<=[\w)}*])\.(?:\s|$)", text.replace("**", ""))[0].strip().strip("*_`").strip()
    return _only_number(text) or text or None


def _formulas(text: str) -> list[str]:
    return [formula for m in _FORMULA.finditer(text) if (formula := next(filter(None, m.groups())).strip())]


def _only_number(text: str) -> str | None:
    """The number in a text of words and one number, such as `18 dollars per day`."""
    found = numbers(_EXPONENT.sub("", text))
    return (
        found[0] if len(found) == 1 and _WORDS.search(text) and not re.search(r"[\\=<>*/+^()]|\d\s*-", text) else None
    )


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


# ---------------------------------------------------------------- comparing


def compare(gold: str, answer: str) -> str:
    """`symbolic.EQUAL`, `DIFFERENT` or `LATE`."""
    if _normal(gold) == _normal(answer):
        return symbolic.EQUAL if _normal(gold) else symbolic.DIFFERENT
    (x, of_what), (y, of_which) = _counted(gold), _counted(answer)
    if x is not None and y is not None:
        alike = not (of_what and of_which) or of_what == of_which
        return symbolic.EQUAL if alike and _same(x, y, gold + answer) else symbolic.DIFFERENT
    if max(len(gold), len(answer)) > LONGEST or not any(map(str.isalnum, answer)):
        return symbolic.DIFFERENT
    u, v = value(gold), value(answer)
    if u is not None and v is not None and abs(u - v) > APART * max(abs(u), abs(v)):
        return symbolic.DIFFERENT
    return _ask(gold, answer)


def _counted(text: str) -> tuple[Fraction | None, str]:
    """(number, what it counts): `18 dollars per day` is 18, of dollars per day; (None, "") of any other text."""
    if (value := number(text)) is not None:
        return value, ""
    found = _COUNTED.fullmatch(text.strip())
    if not found or _NO_UNIT & set(found[2].lower().split()):
        return None, ""
    return number(found[1]), found[2].lower().strip(" .").removesuffix("s")


def _same(x: Fraction, y: Fraction, text: str) -> bool:
    """Exactly; numbers with a decimal point also when they agree to six decimals, and to a relative `ROUNDED`."""
    if x == y or ("%" in text and (x == 100 * y or 100 * x == y)):
        return True
    return "." in text and round(x, 6) == round(y, 6) and abs(x - y) <= symbolic.ROUNDED * max(abs(x), abs(y))


@functools.cache
def workers() -> Pool:
    """The processes that compare expressions: as many as processors, up to 8 (our choice)."""
    return Pool(Path(symbolic.__file__), min(os.cpu_count() or 1, 8))


@functools.lru_cache(maxsize=65536)
def _ask(gold: str, answer: str) -> str:
    verdict = workers().ask(json.dumps([gold, answer]).encode(), seconds=SECONDS)
    return symbolic.LATE if verdict is None else verdict.decode()


def _normal(text: str) -> str:
    text = re.sub(r"^\s*\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}\s*$", r"\1", text)
    return _plain(re.sub(r"\\(?:left|right|,|;|!|\$|%)|[$%\s]", "", text)).rstrip(".")


def _plain(text: str) -> str:
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)
    # A whole number before a fraction makes it a mixed number, which a/b would misread.
    text = re.sub(r"(?<!\d)\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
