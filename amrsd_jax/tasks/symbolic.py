"""Decides whether two values are equal by math-verify, with further checks of what it accepts.

This file is a script that `tasks.workers` runs: it reads lines `["gold", "answer"]` in JSON, values in `notation`, and writes a
verdict for each, `EQUAL`, `DIFFERENT` or `TIMED_OUT`. It imports nothing of the package, so that a worker's start costs the
import of SymPy and no more. A comparison may use `CPU_SECONDS` and `MEMORY`; beyond them the verdict is `TIMED_OUT`, or the
process ends, which `mathematics` treats as the same.

math-verify is not symmetric, and accepts too much where its parser guesses. Both sides are therefore given to it in a box, and
numbers that it calls equal must be close.
"""

import functools
import itertools
import json
import logging
import os
import re
import resource
import signal
import sys

EQUAL, DIFFERENT, TIMED_OUT = "equal", "different", "timed out"
CPU_SECONDS = 2.0  # of one comparison, our choice; processor time, so that a busy machine changes no verdict
MEMORY = 4 * 2**30  # bytes of address space, our choice
EXACT, ROUNDED = 1e-12, 1e-5  # largest relative difference of equal numbers, written exactly or with a decimal point


class OutOfTime(BaseException):
    """Says that the time limit is reached; a BaseException, because SymPy and math-verify catch every Exception."""


def main() -> None:
    from math_verify import parse  # noqa: F401  (the slow import comes before `ready`)

    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not be read as an answer
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.set_int_max_str_digits(20_000)
    signal.signal(signal.SIGPROF, _out_of_time)
    out.write(b"ready\n")
    for line in sys.stdin.buffer:
        out.write(_timed(*json.loads(line)).encode() + b"\n")


def _timed(gold: str, answer: str) -> str:
    # The first alarm interrupts Python code; the second kills a process stuck inside one operation on huge integers.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * CPU_SECONDS)
    try:
        return EQUAL if equal(gold, answer) else DIFFERENT
    except OutOfTime:
        return TIMED_OUT
    except Exception:
        return DIFFERENT
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _out_of_time(*_):
    raise OutOfTime


def equal(gold: str, answer: str) -> bool:
    """Whether two values in `notation` are equal."""
    from math_verify import verify

    gold, answer = _tell_cases_apart(*(_latex(text) for text in (gold, answer)))
    g, a = _parsed(gold), _parsed(answer)
    if not verify(list(g), list(a), allow_set_relation_comp=True, timeout_seconds=None):
        return False
    tolerance = ROUNDED if re.search(r"\.\d", gold + answer) else EXACT
    return not (g and a) or _close(g[0], a[0], tolerance) or _close(a[0], g[0], tolerance)


def _latex(text: str) -> str:
    """Returns a value in `notation` as LaTeX that math-verify's parser knows."""
    return text.replace("*", r"\cdot ").replace(r"\cr", r"\\ ").replace("~", " ").replace("...", r"\ldots ")


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple:
    """Parses a text in a box with math-verify: an expression where it can read one, and the text."""
    from math_verify import LatexExtractionConfig, parse

    return tuple(parse(rf"\boxed{{{text}}}", (LatexExtractionConfig(boxed_match_priority=0),), parsing_timeout=None))


def _close(x, y, tolerance: float) -> bool:
    """Whether numbers, also in sets and tuples, differ by at most a tolerance; math-verify rounds to six decimals.

    True for values that are not numbers.
    """
    from sympy import Basic, FiniteSet, Tuple

    if not (isinstance(x, Basic) and isinstance(y, Basic)):
        return True
    if isinstance(x, FiniteSet) and isinstance(y, FiniteSet):
        return all(any(_close(a, b, tolerance) for b in y) for a in x)
    if isinstance(x, Tuple) and isinstance(y, Tuple):
        return len(x) == len(y) and all(itertools.starmap(lambda a, b: _close(a, b, tolerance), zip(x, y, strict=True)))
    if not (getattr(x, "is_number", False) and getattr(y, "is_number", False)):
        return True
    a, b = x.evalf(40), y.evalf(40)
    if not (a.is_finite and b.is_finite):
        return True
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))


_SPARE = (r"\Xi", r"\Upsilon", r"\Psi", r"\Phi", r"\Sigma", r"\Lambda", r"\Theta", r"\Delta", r"\Gamma")
_LETTER = re.compile(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")


def _tell_cases_apart(gold: str, answer: str) -> tuple[str, str]:
    """Replaces capitals by unused Greek letters where both cases of a letter occur, since math-verify ignores case."""
    letters = {m[0] for text in (gold, answer) for m in _LETTER.finditer(text)}
    spare = iter(name for name in _SPARE if name not in letters and name.lower() not in letters)
    both = sorted(c for c in letters if len(c) == 1 and c.isupper() and c.lower() in letters)
    greek = {capital: other + " " for capital, other in zip(both, spare, strict=False)}
    return tuple(_LETTER.sub(lambda m: greek.get(m[0], m[0]), text) for text in (gold, answer))


if __name__ == "__main__":
    main()
