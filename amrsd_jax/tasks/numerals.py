"""Reads numbers that are written as words, `twenty-one` and `two thirds`, or as Roman numerals, `XIV`."""

import re
from fractions import Fraction

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_COUNTS = {word: n for n, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
# These words multiply the digits before them by a power of ten: 5 million, 5 millions, 5 lakh.
MULTIPLES = {
    f"{word}{plural}": power
    for word, power in {"lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}.items()
    for plural in ("s", "")
} | {"hundred": 2, "thousand": 3, "mln": 6, "bn": 9}  # 5 hundreds may be the digit of a place
NUMBER_WORDS = (*_COUNTS, *_POWERS)  # the words that whole numbers are made of
_PART = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "twelfth": 12, "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
_PARTS = {"halves" if word == "half" else f"{word}s": n for word, n in _PART.items()}
SINGULAR_PARTS, PLURAL_PARTS = frozenset(_PART), frozenset(_PARTS)
_ROMAN = re.compile(r"(?=[MDCL]*[XVI])(?=..)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_ROMAN_DIGITS = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}


def spoken(text: str) -> str:
    """Reads a number in English words, or `5 eighths`, and returns its digits, a fraction as `a/b`; "" for other text."""
    words = re.split(r"[\s-]+", text.strip().lower())
    if len(words) > 12:
        return ""
    if words[-1] not in SINGULAR_PARTS | PLURAL_PARTS:
        whole = _whole(words)
        return "" if whole is None else str(whole)
    count, added = words[:-1], 0
    if "and" in count:  # three and a half
        place = len(count) - 1 - count[::-1].index("and")
        added, count = _count(count[:place]), count[place + 1 :]
    above = 1 if count == ["a"] or words == ["half"] else _count(count)
    part = _PARTS.get(words[-1])
    if above == 1 or (count and count[-1] in _SMALL):  # two-third; but twenty-fifth and two hundredth are ordinals
        part = part or _PART.get(words[-1])
    if words[-2:-1] in (["ten"], ["hundred"]) and part == 1000:  # `two hundred-thousandths` may be 2 / 100,000
        part = None
    return "" if None in (above, added, part) else str(Fraction(above, part) + added)


def _count(words: list[str]) -> int | None:
    """Returns a whole number that is written in words or with at most nine digits; None for other words."""
    return int(words[0]) if len(words) == 1 and re.fullmatch(r"[0-9]{1,9}", words[0]) else _whole(words)


def _whole(words: list[str]) -> int | None:
    total, group, before = 0, 0, None
    for word in words:
        if word == "and" and before in _POWERS:
            continue
        if word in _COUNTS:
            below = 10 if before in _TENS else 100 if before in (None, *_POWERS) else 1
            if not (0 if before is None else 1) <= _COUNTS[word] < below:
                return None
            group += _COUNTS[word]
        elif word == "hundred" and 0 < group < 10:
            group *= 100
        elif word in _POWERS and word != "hundred" and 0 < group < 1000:
            total, group = total + group * _POWERS[word], 0
        elif word == "a" and before is None and len(words) > 1:
            group = 1
            continue
        else:
            return None
        before = word
    return None if before is None else total + group


def roman(text: str) -> int | None:
    """Returns the value of a Roman numeral of two or more capitals; None for other text.

    One letter is a name, and so is `CD`, which has no I, V or X.
    """
    if not _ROMAN.fullmatch(text):
        return None
    digits = [_ROMAN_DIGITS[letter] for letter in text]
    return sum(-a if a < b else a for a, b in zip(digits, [*digits[1:], 0], strict=True))
