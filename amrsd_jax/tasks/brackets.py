"""Splits a text in `notation` outside all brackets."""

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|\\.|[A-Za-z]+|.", re.DOTALL)
_OPEN = {"(", "[", "{", r"\{", r"\langle", r"\begin", r"\lfloor", r"\lceil"}
_CLOSE = {")", "]", "}", r"\}", r"\rangle", r"\end", r"\rfloor", r"\rceil"}
_CONJUNCTION = re.compile(r"\\text\{[\s,]*(and|or)[\s,]*\}")


def pieces(text: str, separators: Sequence[str]) -> list[str]:
    """Splits a text at separators outside all brackets; `\\text{ and }` is the separator `and`. Pieces are stripped."""
    result, start, depth, place = [], 0, 0, 0
    for match in _TOKEN.finditer(text):
        token, place = match[0], match.end()
        depth += (token in _OPEN) - (token in _CLOSE)
        word = _CONJUNCTION.fullmatch(token)
        if depth <= 0 and (word[1] if word else token) in separators:
            result.append(text[start : match.start()].strip())
            start = place
    result.append(text[start:].strip())
    return result


def outer(text: str) -> str:
    """Returns a text without what stands inside brackets, braces of arguments among them."""
    kept, depth = [], 0
    for match in _TOKEN.finditer(text):
        depth -= match[0] in _CLOSE
        kept.append(match[0] if depth <= 0 else "")
        depth += match[0] in _OPEN
    return "".join(kept)


def inside(text: str) -> str | None:
    """Returns the content of the one pair of brackets that holds the whole text, None without one.

    Round and square brackets may be mixed, as in half-open intervals.
    """
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) < 2 or tokens[0][0] not in ("(", "[", r"\{", r"\langle") or tokens[-1][0] not in _CLOSE:
        return None
    depth = 0
    for token in tokens[:-1]:
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0:
            return None
    curly = tokens[0][0] == r"\{"
    if curly != (tokens[-1][0] == r"\}"):
        return None
    return text[tokens[0].end() : tokens[-1].start()].strip()
