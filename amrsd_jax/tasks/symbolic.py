"""Decides whether two mathematical expressions are equal: math-verify, with further checks of what it accepts.

This file is a script that `tasks.workers` runs: it reads lines `["gold", "answer"]` in JSON and writes a verdict for each,
`EQUAL`, `DIFFERENT` or `TIMED_OUT`. It imports nothing of the package, so that a worker's start costs the import of SymPy and
no more. A comparison may use `CPU_SECONDS` and `MEMORY`; beyond them the verdict is `TIMED_OUT`, or the process
ends, which `mathematics` treats as the same.

math-verify is not symmetric, and accepts too much where its parser guesses. Both sides are therefore given to it in a box,
and pairs that it calls equal must also pass `_doubtful`, which covers each of its known false positives.
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


# ---------------------------------------------------------------- equality

_ALTERNATIVES = re.compile(r"\\text\s*\{\s*OR\s*\}|\bOR\b")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|in)(?![a-z])")


def equal(gold: str, answer: str) -> bool:
    """Whether an answer equals the gold answer or one of its alternatives ("a \\text{ OR } b")."""
    return any(_equal(*_tell_cases_apart(latex(one), latex(answer))) for one in _ALTERNATIVES.split(gold))


def _equal(gold: str, answer: str) -> bool:
    from math_verify import verify

    if _doubtful(gold, answer):
        return False
    g, a = _parsed(gold), _parsed(answer)
    if not verify(list(g), list(a), allow_set_relation_comp=True, timeout_seconds=None):
        return False
    tolerance = ROUNDED if re.search(r"\.\d", gold + answer) else EXACT
    shares = (1, 100) if "%" in gold + answer else (1,)  # 50 % equals 1/2, and 50 where the unit is per cent
    if g and a and not any(_close(x, y, tolerance, share) for share in shares for x, y in ((g[0], a[0]), (a[0], g[0]))):
        return False
    if (_ordered(gold) or _ordered(answer)) and not _RELATION.search(gold + answer):
        parts = _items(gold), _items(answer)  # math-verify may have read a point or an interval as a set, without order
        return len(parts[0]) < 2 or all(map(_equal, *parts))
    return True


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple:
    """Parses a text in a box with math-verify: an expression where it can read one, and the text."""
    from math_verify import LatexExtractionConfig, parse

    return tuple(parse(rf"\boxed{{{text}}}", (LatexExtractionConfig(boxed_match_priority=0),), parsing_timeout=None))


def _close(x, y, tolerance: float, share: int = 1) -> bool:
    """Whether numbers, also in sets and tuples, differ by at most a tolerance; math-verify rounds to six decimals.

    True for values that are not numbers.
    """
    from sympy import Basic, FiniteSet, Tuple

    if not (isinstance(x, Basic) and isinstance(y, Basic)):
        return True
    if isinstance(x, FiniteSet) and isinstance(y, FiniteSet):
        return all(any(_close(a, b, tolerance) for b in y) for a in x)
    if isinstance(x, Tuple) and isinstance(y, Tuple):
        return all(_close(a, b, tolerance) for a, b in zip(x, y, strict=False))
    if not (getattr(x, "is_number", False) and getattr(y, "is_number", False)):
        return True
    a, b = (share * x).evalf(40), y.evalf(40)
    if not (a.is_finite and b.is_finite):
        return True
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))


# ---------------------------------------------------------------- false positives of math-verify

_NEGATING = re.compile(r"\b(?:not|no|never|wrong|incorrect|except|impossible|unless|undefined|cannot)\b", re.IGNORECASE)
_UNITS = {
    name: names[0]
    for names in (
        ("mm", "millimeter"), ("cm", "centimeter"), ("m", "meter"), ("km", "kilometer"), ("in", "inch", "inche"),
        ("ft", "foot", "feet"), ("yd", "yard"), ("mi", "mile"), ("mg",), ("g", "gram"), ("kg", "kilogram"),
        ("second", "sec"), ("min", "minute"), ("h", "hr", "hour"), ("day",), ("week",), ("month",), ("year",),
        ("dollar",), ("cent",), ("degree",), ("radian", "rad"), ("percent",),
    )
    for name in names
}  # fmt: skip


def _doubtful(gold: str, answer: str) -> bool:
    """Whether the texts show that the answers differ, whatever expressions math-verify reads in them."""
    if bool(_NEGATING.search(gold)) != bool(_NEGATING.search(answer)):
        return True
    if _count(gold) != _count(answer) and not (_RELATION.search(gold + answer) or r"\cup" in gold + answer):
        return True
    kinds = {_brackets(gold), _brackets(answer)}
    if "set" in kinds and kinds & {"round", "mixed"} and len(_items(gold)) > 1:  # {1, 2} is neither (1, 2) nor [1, 2)
        return True
    bases = re.findall(r"\d_\{?(\d+)", gold), re.findall(r"\d_\{?(\d+)", answer)
    if all(bases) and bases[0] != bases[1]:
        return True
    if len(re.findall(r"(?<![<>!:\\])=", answer)) > len(re.findall(r"(?<![<>!:\\])=", gold)) + _count(gold):
        return True
    units = _unit(gold), _unit(answer)
    return all(units) and units[0] != units[1]


def _brackets(text: str) -> str:
    """Returns "set", "round" (a point, an open interval), "mixed" (another interval, a list), or "" for an expression."""
    text = re.sub(r"\\(?:left|right)(?![a-z])|\s", "", text)
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return "set"
    if _top_commas(text[1:-1]) and text[:1] in "([" and text[-1:] in ")]":
        return "round" if text[0] + text[-1] == "()" else "mixed"
    return ""


def _ordered(text: str) -> bool:
    return _brackets(text) in ("round", "mixed")


def _items(text: str) -> list[str]:
    """Splits a list, point, interval or set at its commas."""
    text = re.sub(r"\\(?:left|right)(?![a-z])", "", text).strip()
    if _brackets(text):
        text = re.sub(r"^\\?[{(\[]|\\?[})\]]$", "", text)
    cuts = [-1, *_top_commas(text), len(text)]
    return [text[a + 1 : b].strip() for a, b in itertools.pairwise(cuts)]


def _count(text: str) -> int:
    return sum(bool(item) for item in _items(text))


def _top_commas(text: str) -> list[int]:
    """Returns the positions of commas outside all brackets."""
    positions, depth = [], 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            positions.append(place)
    return positions


def _unit(text: str) -> str | None:
    """Returns the unit at the end of an expression, None without one of `_UNITS`."""
    match = re.search(
        r"(?:\\(?:text|mathrm|mbox)\s*\{\s*(?:square |cubic )?([A-Za-z]+)\s*\}|\d\s*([A-Za-z]+))[\s.^0-9{}]*$", text
    )
    if not match:
        return None
    word = (match[1] or match[2]).lower()
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))


# ---------------------------------------------------------------- normalisation

_PLAIN = (
    (r"(?<![\\a-z])(sqrt|pi|infty|sin|cos|tan|log|ln|theta|alpha|beta)(?![a-z])", r"\\\1 "),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"\*\*", "^"),
    (r"(?<=[\w)}])\s*\*\s*(?=[\w(\\])", r"\\cdot "),
    (r"\^\(([^()]*)\)", r"^{\1}"),
    (r"(?<=\d)\s*[eE]([+-]?\d+)(?![\w.])", r"\\cdot 10^{\1}"),
    (r"\\(?:text|mathrm|mbox)\s*\{\s*(?:and|or|,)\s*\}|(?<![\\a-z])(?:and|or)(?![a-z])", ","),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\\(?:,|;|!|:|quad|qquad)(?![a-z])|~", " "),
    (r"\\(?:displaystyle|textstyle|boldsymbol|bm|bf)(?![a-z])", ""),
    (r"^\s*(?:\$+|\\\(|\\\[)|(?:\$+|\\\)|\\\])\s*[.,]?\s*$", ""),
    (r"\$\s*,\s*\$", ","),
    (r"(?<!\\)\$", ""),
    (r"^\s*[(]([^(),]*)[)]\s*$", r"\1"),  # (5) is 5
    (r"^[\s,]*|[\s,.]*$", ""),
)
_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
        "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "°": r"^\circ ", "²": "^2", "³": "^3",
        "√": r"\sqrt ", "½": r"\frac12 ", "，": ",", "⁄": "/",
    }
)  # fmt: skip


def latex(text: str) -> str:
    """Converts an expression in LaTeX, in code (`3*sqrt(2)`, `2**10`, `1e5`) or with Unicode signs to LaTeX."""
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text).translate(_SIGNS)
    text = text.replace(r"\cr", r"\\\\")
    for pattern, written in _PLAIN:
        text = re.sub(pattern, written, text)
    text = text.strip()
    if r"\pm" in text and not _top_commas(text):
        swapped = text.replace(r"\mp", r"\nothing").replace(r"\pm", "-").replace(r"\nothing", "+")
        text = text.replace(r"\pm", "+").replace(r"\mp", "-") + ", " + swapped
    return text


_SPARE = (r"\Xi", r"\Upsilon", r"\Psi", r"\Phi", r"\Sigma", r"\Lambda", r"\Theta", r"\Delta", r"\Gamma")
_LETTER = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")


def _tell_cases_apart(gold: str, answer: str) -> tuple[str, str]:
    """Replaces capitals by unused Greek letters where both cases of a letter occur, since math-verify ignores case."""
    letters = {m[0] for text in (gold, answer) for m in _LETTER.finditer(text)}
    spare = iter(name for name in _SPARE if name not in letters and name.lower() not in letters)
    both = sorted(c for c in letters if len(c) == 1 and c.isupper() and c.lower() in letters)
    greek = {capital: other + " " for capital, other in zip(both, spare, strict=False)}
    return tuple(_LETTER.sub(lambda m: greek.get(m[0], m[0]), text) for text in (gold, answer))


if __name__ == "__main__":
    main()
