"""Reads words that act on a number in prose: `half of 5` and `5 squared` are not 5, and `3 out of 5` is 3/5."""

import re

from amrsd_jax.tasks import numerals

_PARTS = "|".join(sorted(numerals.PLURAL_PARTS - {"quarters"}))  # 5 quarters are coins
_ACTS_BEFORE = (
    r"\b(?:(?:half|twice|thrice|double|triple|root)(?: of)?"
    r"|(?:root|square|cube|factorial|reciprocal|inverse|logarithm|third|quarter|fourth|fifth|sixth|eighth|tenth) of"
    r"|(?:sum|difference|product|quotient|average|mean) of [-\d.,$ ]{1,60} and"
    r"|(?<![\w.,])\d[\d.,]{0,30} (?:choose|mod|modulo|over|divided by|times|multiplied by|plus|minus"
    r"|(?:raised )?to the power(?: of)?))"
    r"(?: the)?(?: number)?"
)
_ACTS_BEHIND = rf"(?:(?:squared|cubed|factorial)\b(?! \w)|(?:{_PARTS}|choose)\b|to the power\b)"
_BEFORE = re.compile(rf"(?:{_ACTS_BEFORE})(?=\s*$)", re.IGNORECASE)
_BEHIND = re.compile(rf"\s?{_ACTS_BEHIND}", re.IGNORECASE)
_ACTED = re.compile(
    rf"(?:{_ACTS_BEFORE})\s[-$\\(]{{0,3}}\d[\d.,]{{0,30}}|(?<![\w.,])\d[\d.,]{{0,30}}\s?{_ACTS_BEHIND}|\d\s?(?:pi|π)\b|\b(?:pi|π|sqrt)\s?\(?\d",
    re.IGNORECASE,
)
_OUT_OF = re.compile(r"(?<![\w.,/:])(\d{1,15}) out of (?:every |the )?(\d{1,15})(?![\w,:/]|\.\d)")
_ONE_IN = re.compile(
    r"(\b(?:probability|chances?|odds)\b[^\d\n]{0,60}(?<![\w.,/:]))(\d{1,15}) in (\d{1,15})(?![\w,:/]|\.\d)", re.I
)
_RATIO = re.compile(
    r"(\b(?:ratio|odds|proportion)\b[^\d\n]{0,60}(?<![\w.,/:])(?<!from ))(\d{1,15}) to (\d{1,15})(?![\w,:/]|\.\d)", re.I
)


def in_signs(text: str) -> str:
    """Returns a text with `3/5` for "3 out of 5", of chances also for "3 in 5", and of ratios with `3:5` for "3 to 5"."""
    text = _RATIO.sub(r"\1\2:\3", _ONE_IN.sub(r"\1\2/\3", text))
    return _OUT_OF.sub(r"\1/\2", text)


def acted(before: str, value: str, behind: str) -> str:
    """Returns a value with the words around it that act on it, `half of 5`, and any other value as it is."""
    if found := _BEFORE.search(before[-100:]):
        return f"{found[0]} {value}"
    found = _BEHIND.match(behind)
    return f"{value} {found[0].strip()}" if found else value


def is_acted_upon(text: str) -> bool:
    """Returns whether a text begins with words that act on a number, or with a number and such words."""
    return _ACTED.match(text.removeprefix("the ")) is not None


def first_acted(text: str) -> str:
    """Returns the first number in a text that words act on, with these words; "" without one."""
    found = _ACTED.search(text)
    return found[0] if found else ""
