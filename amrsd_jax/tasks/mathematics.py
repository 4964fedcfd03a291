"""Mathematics verifier: finds the final answer in a response (`replies`), and compares it with the gold answer (`answers`).

Text and the values of expressions decide nearly all cases, in bounded time. What they cannot settle goes to math-verify worker
processes (`symbolic`), which are killed when they take too long.
"""

import functools
import json
import os
import re
from fractions import Fraction
from pathlib import Path

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks import answers, expressions, symbolic
from amrsd_jax.tasks.notation import notation, squeezed
from amrsd_jax.tasks.replies import any_answer, final_answer, gold_answer
from amrsd_jax.tasks.workers import Pool

SECONDS = 20.0  # wall time of one comparison by a worker, our choice; a worker's limit of processor time comes first
LONGEST = (
    1_000  # characters of an answer that is compared as more than a text, our choice; benchmarks' gold answers have 224
)
QUESTIONS = (
    12  # comparisons by a worker for one pair of answers, our choice; a list asks one for each pair of its values
)

_EXACT = re.compile(
    r"(?P<sign>-?)(?:(?P<number>\d+(?:\.\d+)?(?:/\d+)?|\.\d+)|(?P<whole>\d*)\\frac\{(?P<above>\d+)\}\{(?P<over>\d+)\})",
    re.ASCII,
)


class _OutOfTime(Exception):
    """Says that a worker did not answer in time, or was asked too often."""


def verify_mathematics(gold: str, response: str, *, form: str = "row") -> Verdict:
    """Returns the verdict: reward 1 if the response's final answer equals the gold answer as text, number or expression, else 0.

    Args:
      gold: the answer, in LaTeX or plain text, or a solution or sentence that ends with it.
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


@functools.lru_cache(maxsize=4096)
def number(answer: str) -> Fraction | None:
    """Returns the exact value of an answer that is a plain or mixed number, without its per cent sign; None for other answers."""
    match = _EXACT.fullmatch(re.sub(r"[$%\s]|\.$", "", notation(answer))) if len(answer) <= LONGEST else None
    if not match:
        return None
    try:
        if match["over"]:
            value = int(match["whole"] or 0) + Fraction(int(match["above"]), int(match["over"]))
        else:
            value = Fraction(match["number"])
    except (ValueError, ZeroDivisionError):  # 1.5/2 or too many digits for Python; 1/0
        return None
    return -value if match["sign"] else value


@functools.lru_cache(maxsize=4096)
def value(text: str) -> float | None:
    """Returns the value of a real expression without variables; None for other text."""
    expression = expressions.parse(notation(text)) if len(text) <= LONGEST else None
    if expression is None or expression.names:
        return None
    try:
        found = expression.at({})
        return None if found is None or not expressions.is_real(found) else float(expressions.fraction(found))
    except (expressions.Unsupported, OverflowError):
        return None


def compare(gold: str, answer: str) -> str:
    """Returns `symbolic.EQUAL`, `DIFFERENT` or `TIMED_OUT`."""
    if squeezed(gold) == squeezed(answer):
        return symbolic.EQUAL if squeezed(gold) else symbolic.DIFFERENT
    gold = gold_answer(gold)
    if max(len(gold), len(answer)) > LONGEST:
        return symbolic.EQUAL if squeezed(gold) == squeezed(answer) else symbolic.DIFFERENT
    if not re.search(r"\w|\\\{|[∅∞]", answer):
        return symbolic.DIFFERENT
    try:
        return symbolic.EQUAL if _equal(gold, answer) else symbolic.DIFFERENT
    except _OutOfTime:
        return symbolic.TIMED_OUT


@functools.lru_cache(maxsize=65536)  # what ran out of time is asked again, since an exception is not kept
def _equal(gold: str, answer: str) -> bool:
    left = QUESTIONS

    def ask(one: str, other: str) -> bool:
        nonlocal left
        left -= 1
        verdict = workers().ask(json.dumps([one, other]).encode(), seconds=SECONDS) if left >= 0 else None
        if verdict is None or verdict.decode() == symbolic.TIMED_OUT:
            raise _OutOfTime
        return verdict.decode() == symbolic.EQUAL

    try:
        return answers.equal(gold, answer, ask)
    except _OutOfTime:
        raise
    except Exception:  # a model's text must not end a run; brackets hundreds deep raise a RecursionError
        return False


@functools.cache
def workers() -> Pool:
    """Returns the pool of worker processes that compare expressions: one per processor, up to 8 (our choice)."""
    return Pool(Path(symbolic.__file__), min(os.cpu_count() or 1, 8))
