"""Mathematics verifier: finds the final answer in a response, and compares it with the gold answer.

Text and exact numbers decide most cases. Answers that they cannot settle go to math-verify worker processes
(`tasks.symbolic`), which are killed when they take too long.
"""

import functools
import json
import os
import re
from fractions import Fraction
from pathlib import Path

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks import symbolic
from amrsd_jax.tasks.arithmetic import value
from amrsd_jax.tasks.thoughts import after_thoughts
from amrsd_jax.tasks.workers import Pool

SECONDS = 20.0  # wall time of one comparison by a worker, our choice; a worker's limit of processor time comes first
TAIL = 100_000  # the final answer is searched in this many characters at the end of a response, our choice
APART = 1e-3  # values with a larger relative difference are different, our choice; above the error of floating point
LONGEST = 1_000  # characters of an answer that a worker compares, our choice; benchmarks' gold answers have 224 at most

# Not inside a word or another number; a minus behind one of these is a subtraction, not a sign.
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
    """Returns the verdict: reward 1 if the response's final answer equals the gold answer as text, number or expression, else 0.

    Args:
      gold: the answer, in LaTeX or plain text.
      response: the whole response.
      form: where the answer may stand: "row" (see `final_answer`) or "any" (see `any_answer`).
    """
    parsed, format_ok = final_answer(response) if form == "row" else any_answer(response)
    return judge(gold, parsed, format_ok)


def judge(gold: str, answer: str | None, format_ok: bool = True) -> Verdict:
    """Returns the verdict on an answer; None is a response without one."""
    if answer is None:
        return Verdict(0.0, "no final answer was found", None, False)
    outcome = compare(gold, answer)
    if outcome == symbolic.EQUAL:
        return Verdict(1.0, "correct", answer, format_ok)
    if outcome == symbolic.TIMED_OUT:
        return Verdict(0.0, "comparing the final answer timed out", answer, format_ok)
    return Verdict(0.0, "the final answer is wrong", answer, format_ok)


# ---------------------------------------------------------------- reading


def final_answer(response: str) -> tuple[str | None, bool]:
    """Returns (answer, whether it had a requested form).

    The answer is the content of the last balanced `\\boxed{}`, else the text behind the last `####`, else the last formula or
    number of the last line; only the first two forms are requested. Boxes with only separators between them make one
    answer, joined by commas.
    """
    response = after_thoughts(response)[-TAIL:]
    box = _last_boxes(response)
    if box is not None:
        return box, True
    _, mark, tail = response.rpartition("####")
    if mark and tail.strip():
        return tail.strip().split("\n")[0], True
    lines = response.strip().splitlines()
    return (_of_line(lines[-1]), False) if lines else (None, False)


def any_answer(response: str) -> tuple[str | None, bool]:
    """As `final_answer`, but before the last line tries the last `<answer>` tag and the last "the answer is ..."."""
    answer, asked_for = final_answer(response)
    if asked_for:
        return answer, True
    response = after_thoughts(response)[-TAIL:]
    if tags := _TAG.findall(response):
        return tags[-1].strip() or None, True
    if stated := _STATED.findall(response):
        return _of_sentence(stated[-1]), False
    return answer, False


def _last_boxes(text: str) -> str | None:
    """Returns the content of the balanced box that begins last, joined to that of earlier boxes with only separators between.

    A single pass, since a looping response may open thousands of boxes.
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
    contents = [text[inside:end]]
    while boxes and boxes[-1][2] < start and _SEPARATOR.fullmatch(text[boxes[-1][2] + 1 : start][:100]):
        start, inside, end = boxes.pop()
        if text[inside:end] not in contents:
            contents.insert(0, text[inside:end])
    return ", ".join(contents)


def _of_line(line: str) -> str | None:
    formulas = _formulas(line)
    if formulas:
        return formulas[-1]
    last = numbers(_EXPONENT.sub("", line) if "\\" not in line else line)
    return last[-1] if last else None


def _of_sentence(text: str) -> str | None:
    """Returns the answer in a sentence: its formulas, its only number, or all of it."""
    if formulas := _formulas(text):
        return formulas[-1] if len(formulas) == 1 else ", ".join(formulas)
    text = re.split(r"(?<=[\w)}*])\.(?:\s|$)", text.replace("**", ""))[0].strip().strip("*_`").strip()
    return _only_number(text) or text or None


def _formulas(text: str) -> list[str]:
    return [formula for m in _FORMULA.finditer(text) if (formula := next(filter(None, m.groups())).strip())]


def _only_number(text: str) -> str | None:
    """Returns the number in a text of words and one number, such as `18 dollars per day`, None for other text."""
    values = numbers(_EXPONENT.sub("", text))
    plain = _WORDS.search(text) and not re.search(r"[\\=<>*/+^()]|\d\s*-", text)
    return values[0] if len(values) == 1 and plain else None


def numbers(text: str) -> list[str]:
    """Returns the numbers in a text, in order, without thousands separators and with LaTeX fractions as a/b."""
    return _NUMBER.findall(_plain(text))


def number(answer: str) -> Fraction | None:
    """Returns the exact value of an answer that is a number, None for other answers."""
    text = _normal(answer)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):  # 1.5/2 or too many digits for Python; 1/0
        return None


# ---------------------------------------------------------------- comparing


def compare(gold: str, answer: str) -> str:
    """Returns `symbolic.EQUAL`, `DIFFERENT` or `TIMED_OUT`."""
    if _normal(gold) == _normal(answer):
        return symbolic.EQUAL if _normal(gold) else symbolic.DIFFERENT
    (x, x_unit), (y, y_unit) = _counted(gold), _counted(answer)
    if x is not None and y is not None:
        same_unit = not (x_unit and y_unit) or x_unit == y_unit
        return symbolic.EQUAL if same_unit and _same(x, y, gold + answer) else symbolic.DIFFERENT
    if max(len(gold), len(answer)) > LONGEST or not any(map(str.isalnum, answer)):
        return symbolic.DIFFERENT
    u, v = value(gold), value(answer)
    if u is not None and v is not None and abs(u - v) > APART * max(abs(u), abs(v)):
        return symbolic.DIFFERENT
    return _ask(gold, answer)


def _counted(text: str) -> tuple[Fraction | None, str]:
    """Splits a text into (number, unit): `18 dollars per day` into 18 and `dollars per day`; (None, "") for other text."""
    if (whole := number(text)) is not None:
        return whole, ""
    match = _COUNTED.fullmatch(text.strip())
    if not match or _NO_UNIT & set(match[2].lower().split()):
        return None, ""
    return number(match[1]), match[2].lower().strip(" .").removesuffix("s")


def _same(x: Fraction, y: Fraction, text: str) -> bool:
    """Whether two numbers are equal: exactly, as per cent, or with a decimal point to six decimals and a relative `ROUNDED`."""
    if x == y or ("%" in text and (x == 100 * y or 100 * x == y)):
        return True
    return "." in text and round(x, 6) == round(y, 6) and abs(x - y) <= symbolic.ROUNDED * max(abs(x), abs(y))


@functools.cache
def workers() -> Pool:
    """Returns the pool of worker processes that compare expressions: one per processor, up to 8 (our choice)."""
    return Pool(Path(symbolic.__file__), min(os.cpu_count() or 1, 8))


@functools.lru_cache(maxsize=65536)
def _ask(gold: str, answer: str) -> str:
    verdict = workers().ask(json.dumps([gold, answer]).encode(), seconds=SECONDS)
    return symbolic.TIMED_OUT if verdict is None else verdict.decode()


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
