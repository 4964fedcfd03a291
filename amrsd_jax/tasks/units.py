"""Splits a value from its unit or from the words behind it, and compares units. Units are never converted, our choice."""

import dataclasses
import re

from amrsd_jax.tasks import numerals

_NAMES = {
    name: names[0]
    for names in (
        ("mm", "millimeter", "millimetre"), ("cm", "centimeter", "centimetre"), ("m", "meter", "metre"), ("dm", "decimeter"),
        ("km", "kilometer", "kilometre"), ("inch", "in", "inche"), ("foot", "ft", "feet"), ("yard", "yd"), ("mile", "mi"),
        ("mg", "milligram"), ("g", "gram", "gm"), ("kg", "kilogram"), ("ton", "tonne"), ("lb", "pound"), ("oz", "ounce"),
        ("s", "second", "sec"), ("min", "minute"), ("h", "hr", "hour"), ("day",), ("week",), ("month",), ("year", "yr"),
        ("dollar", "usd"), ("cent",), ("euro", "eur"), ("yuan", "rmb"), ("rupee", "rs"), ("degree", "deg"), ("radian", "rad"),
        ("l", "liter", "litre"), ("ml", "milliliter", "millilitre"), ("gallon", "gal"), ("n", "newton"), ("j", "joule"),
        ("kj", "kilojoule"), ("w", "watt"), ("kw", "kilowatt"), ("v", "volt"), ("pa", "pascal"), ("k", "kelvin"), ("hz", "hertz"),
        ("mol", "mole"), ("ev",), ("mev",), ("nm", "nanometer"), ("unit",), ("acre",), ("point",),
    )
    for name in names
}  # fmt: skip
_PREFIXED = re.compile(r"m(w|pa|j|n|v|ev|hz)", re.IGNORECASE)  # milli or mega
_NO_UNIT = frozenset(
    {
        "and", "or", "to", "not", "no", "than", "if", "is", "are", "wrong", "but", "nor", "except", "unless", "at", "from",
        "between", "mod", "for", "where", "when", "either", "maybe", "without", "dozen", "k", "factorial", "score", "gross",
        "dozens", "choose", "plus", "minus", "over", "half", "quarter", "tens", "hundreds", "thousands", "grand",
        *numerals.PLURAL_PARTS, *numerals.MULTIPLES,
    }
)  # fmt: skip
_WORD = r"(?:\\text\{[^{}\d]*\}|(?<![A-Za-z\\])[A-Za-zµμΩ]+\.?)"
_POWER = r"(?:\^\{?-?\d\}?)?"
_TAIL = re.compile(
    rf"(?:(?<=[\d}})\]!.|%])|(?<=\\pi)(?=\\text|\s?[A-Za-z]{{3}}))(\^\\circ\s?[CFK]?|(\s*)({_WORD}{_POWER}(?:(?:\s*[/*-]\s*|\s*){_WORD}{_POWER}){{0,9}}))[\s.]*$"
)
_LETTER = re.compile(r"\\text\{ ?([A-Za-z])\}")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_PIECE = re.compile(r"(/)|(?:([A-Za-zµμΩ']+)\.?)\s?(?:\^\{?(-?\d)\}?)?")
_FRACTION_OF_UNITS = re.compile(r"\\frac\{(\\text\{[^{}\d]*\})\}\{(\\text\{[^{}\d]*\}(?:\^\{?\d\}?)?)\}$")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit, or the words that follow a number.

    Attributes:
      powers: the name of each part, in the singular, and its power, sorted.
      known: whether each part is the name of a unit.
    """

    powers: tuple[tuple[str, int], ...] = ()
    known: bool = True

    def agrees(self, other: "Unit") -> bool:
        """Whether two units may be the same: they are equal, one is missing, or one has more words, as `dollars per day`."""
        if not self.powers or not other.powers or self.powers == other.powers:
            return True
        names = {name for unit in (self, other) for name, _ in unit.powers}
        if len(names) == 2 and "degree" in names:  # 20 degrees are degrees of any scale
            return bool(names & {"degreeC", "degreeF", "degreeK"})
        if self.known and other.known:
            return False
        mine, others = ({(name, power > 0) for name, power in unit.powers} for unit in (self, other))
        return mine <= others or others <= mine


def split(text: str) -> tuple[str, Unit]:
    """Splits a text in `notation` into a value and its unit: `5\\text{ m}/\\text{s}` into `5` and m/s. The unit may be empty."""
    text = _FRACTION_OF_UNITS.sub(r"\1/\2", text)
    tail = _TAIL.search(text)
    if not tail:
        return text, Unit()
    value = text[: tail.start()].rstrip("~ ")
    if tail[3] is None:
        if _FUNCTION.search(value):  # \sin 30^\circ has no unit
            return text, Unit()
        return value, Unit((("degree" + tail[1].removeprefix(r"^\circ").strip(), 1),))
    words = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", tail[3])
    unit = _unit(words)
    if unit is not None and not unit.known and value.endswith(r"\pi"):  # \pi\text{ thousand}, \pi abc
        return text, Unit()
    if unit is None or not (r"\text" in tail[3] or _plain_words_are_a_unit(words, bool(tail[2]), value)):
        return text, Unit()
    return value, unit


def _of_prefix(word: str, unit: str) -> str:
    """Returns the name of a unit with m or M before it; mpa, mev and mhz in small letters are mega, as they mostly are."""
    mega = word[0] == "M" or (word.islower() and unit in ("pa", "ev", "hz"))
    return ("M" if mega else "m") + unit


def letters_as_in(text: str, other: str) -> str:
    """Returns a text whose upright letters are variables where the other text has them as such: `2\\text{ m}` beside `2m`."""

    other = re.sub(r"\\text\{[^{}]*\}", "#", other)

    def written(match: re.Match) -> str:
        bare = re.search(rf"(?<![A-Za-z\\{{])( ?){match[1]}(?![A-Za-z])", other)
        return bare[1] + match[1] if bare else match[0]

    return _LETTER.sub(written, text)


def _plain_words_are_a_unit(words: str, spaced: bool, value: str) -> bool:
    """Whether letters that no `\\text` marks are a unit, and not variables: `5 m` and `5cm` are, `5m` and `5 xy` are not."""
    letters = re.findall(r"[A-Za-z]+", words)
    if not re.search(r"(?:\d\.?|10\^\{-?\d+\})$", value):
        return all(len(word) > 2 for word in letters) and (spaced or value.endswith("%"))
    if spaced or "/" in words or re.fullmatch(r"[a-z]\^\{[23]\}", words):
        return all(len(word) > 2 or word.lower() in _NAMES for word in letters)
    return all(len(word) > 1 and is_name(word) for word in letters)


def is_name(word: str) -> bool:
    """Returns whether a word is the name of a unit, in the singular or plural."""
    return word.lower() in _NAMES or word.lower().removesuffix("s") in _NAMES


def _unit(words: str) -> Unit | None:
    """Reads a unit; None if the words are none, as in `5 or more`."""
    if words.lower().rstrip(" .}").rpartition(" ")[2] in numerals.SINGULAR_PARTS:  # 1 fifth; but 12 fifth graders
        return None
    powers: dict[str, int] = {}
    sign, factor, known = 1, 1, True
    for short, long in ((r"\bkmp?h\b|\bkph\b", "km/h"), (r"\bmph\b", "mile/h"), (r"\b(?:per|each|every|an?)\b", "/")):
        words = re.sub(short, long, words, flags=re.IGNORECASE)
    for match in _PIECE.finditer(words):
        if match[1]:
            sign = -1
            continue
        word = match[2].lower()
        if word in _NO_UNIT and not (word == "k" and powers):  # 5k is 5,000; in J/K it is a kelvin
            return None
        if word in ("square", "sq", "cubic", "cu"):
            factor = 2 if word.startswith("s") else 3
            continue
        prefixed = _PREFIXED.fullmatch(word)
        name = _of_prefix(match[2], prefixed[1]) if prefixed else _NAMES.get(word) or _NAMES.get(word.removesuffix("s"))
        known &= name is not None
        name = name or word.removesuffix("s")
        if word in ("squared", "cubed"):
            if not powers:  # 9 squared is 81
                return None
            name, factor = list(powers)[-1], 1 if word == "squared" else 2
        powers[name] = powers.get(name, 0) + sign * factor * int(match[3] or 1)
        factor = 1
    return Unit(tuple(sorted(powers.items())), known)


_CURRENCY = re.compile(
    r"(?P<dollar>\\\$|^\$(?=[\d.,]+$)|\bdollars?\b|\busd\b)|(?P<euro>€|\beuros?\b)|(?P<pound>£)|(?P<yen>¥)|(?P<rupee>₹|\brupees?\b)"
    r"|(?P<cent>¢|\\cent\b|\bcents?\b)",
    re.IGNORECASE,
)


def currency(text: str) -> str:
    """Returns the currency that an answer names, by sign or word, before `notation` drops signs; "" for none or several."""
    names = {found.lastgroup for found in _CURRENCY.finditer(text)}
    return names.pop() if len(names) == 1 else ""
