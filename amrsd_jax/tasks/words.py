"""Compares answers that are words, an option's letter or a time of day, and finds what words say about a value.

The comparisons return None for answers of another kind.
"""

import re
from typing import NamedTuple

from amrsd_jax.tasks import numerals

_QUALIFIED = re.compile(
    r"\bor (?:more|less|fewer|greater|higher|lower|above|below|another|so)\b|\b(?:at|the) (?:least|most)\b|\b(?:more|less|fewer"
    r"|greater|larger|smaller|higher|lower|other|rather) than\b|\banything but\b|\bdifferent from\b|"
    r"\b(?:not|no(?!\. of\b)|never|cannot|wrong|incorrect|except|impossible|unless"
    r"|undefined|almost|nearly|up to|neither|nor|isn't|unknown|unlikely|above|below|between"
    r"|(?:minus|negative)(?![\s}~]*(?:\d|\\frac)))\b|n't\b"
    r"|\b(?:over|under) (?=\d)",
    re.IGNORECASE,
)


def said(text: str) -> list[str]:
    """Returns what a text says about its value in words, such as `at least`."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    plain = re.sub(r"\b[A-Z]{2,}\b", " ", plain).lower()  # NO is a segment
    return sorted({re.sub(r"\s+", " ", found.strip()) for found in _QUALIFIED.findall(plain)})


_VERB = re.compile(r"(\w+(?:['’]t)?)?\s*\b(?:is|are|was|were|be|equals?)\b([^:=]*)$")  # with the word before it
_AT_THE_END = re.compile(r"\b(?:not|negative|minus|(?:at|the) (?:least|most)|above|below|between|over|under)$")
_DENIED_NOUN = re.compile(
    r"\b(?:incorrect|wrong|false|mistaken) (?:final )?(?:answer|result|value|solution)\b|\bmistake is$"
)


def qualifies(lead: str) -> bool:
    """Returns whether words before a value deny or bound it, as `at least:`, `cannot be` and `the incorrect answer is` do.

    What they say of something else, as in `The number of wrong answers is`, does not.
    """
    plain = re.sub(r"\\text\{([^{}]*)\}?", r" \1 ", lead).lower().strip(" :={}")
    verb = _VERB.search(plain)
    beside = f"{verb[1] or ''} {verb[2]}" if verb else " ".join(plain.split()[-2:])
    ends = verb is None and _AT_THE_END.search(beside)
    return bool((verb and said(beside)) or ends or _DENIED_NOUN.search(plain))


_SYMBOLS = {  # what a text in words says in one symbol
    r"\emptyset": re.compile(
        r"(?:there (?:is|are|exists?) )?no (?:(?:real|such|valid|possible) )*(?:solution|root|number|value)s?"
        r"(?: for [a-z])?(?: exists?| in the reals)?|has no (?:real )?(?:solution|root)s?|(?:the )?empty set"
    ),
    r"\mathbb{R}": re.compile(
        r"(?:[a-z] (?:is|can be) )?(?:the set of )?(?:(?:all|any|every) (?:of )?(?:the )?|the )"
        r"real(?:s| numbers?| values?(?: of)?)?(?: [a-z])?|reals?|real numbers?"
    ),
    r"\mathbb{Z}": re.compile(r"(?:the set of )?(?:all|any|every) (?:the )?integers?|integers"),
    "(0,\\infty)": re.compile(r"(?:the set of )?(?:all )?positive (?:real numbers|reals)"),
    "[0,\\infty)": re.compile(r"(?:the set of )?(?:all )?(?:nonnegative|non-negative) (?:real numbers|reals)"),
    "(-\\infty,0)": re.compile(r"(?:the set of )?(?:all )?negative (?:real numbers|reals)"),
    r"\text{DNE}": re.compile(r"(?:(?:the )?limit )?(?:does not|doesn't) exist|dne"),
}


_ALL_BUT = re.compile(r"all (?:real numbers|reals)(?: [a-z])? except(?: for)?(?: [a-z]\s?=)? (-?[^ a-z=]+)")


def symbols(text: str) -> str:
    r"""Returns `\emptyset` for "no solution", `\mathbb{R}` for "all real numbers" and the like, any other text as it is."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).replace("~", " ")
    plain = " ".join(plain.lower().split())
    if excepted := _ALL_BUT.fullmatch(plain):
        return rf"\mathbb{{R}}\setminus\{{{excepted[1]}\}}"
    return next((symbol for symbol, words in _SYMBOLS.items() if words.fullmatch(plain)), text)


def roman(gold: str, answer: str) -> bool | None:
    """Compares a gold answer that is a Roman numeral with an integer in digits."""
    value = numerals.roman(re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r"\1", gold))
    return None if value is None or not re.fullmatch(r"\d+", answer) else value == int(answer)


_OTHER_LABEL = re.compile(
    r"[\s~}]*(?:\\text\{\s*)?(?:,|/|&|and\b|or\b)[\s~}]*(?:\\text\{\s*)?"
    r"(?:\(([A-H])\)|([A-H])\)?(?=[\s~}.]*(?:$|[,/&]|or\b|and\b)))"
)


def labels(gold: str, answer: str) -> bool | None:
    """Compares an option's letter with the letter and the option's text: `C` and `C. x = 42`, or `(C) x = 42`."""
    for one, other in ((gold, answer), (answer, gold)):
        letter = re.fullmatch(r"(?:\\text\{)?\(?([A-H])\)?\}?", one)
        if letter and (label := re.match(r"(?:\\text\{)?(?:\(([A-H])\)|([A-H])[.:)])(?=[\s}]|[^\s=]|$)", other)):
            more = _OTHER_LABEL.match(other, label.end())
            named = {label[1] or label[2], *filter(None, more.groups() if more else ())}
            return named == {letter[1]}
    return None


def words(gold: str, answer: str) -> bool | None:
    """Compares words, which are no products of variables: `even`, `HTH`, `\\text{Monday}`; case counts for capitals alone."""
    if gold != answer and sorted(gold) == sorted(answer) and _are_words(gold, answer):
        return False
    texts = [_as_words(text) for text in (gold, answer)]
    if texts[0] is None and texts[1] is None:
        return None
    if texts[0] is None or texts[1] is None:  # `\text{AB}` may stand for the expression AB
        plain = [re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip() for text in (gold, answer)]
        return plain[0] == plain[1] or (plain[0].lower() == plain[1].lower() and min(map(len, plain)) > 2)
    if all(re.fullmatch(r"[A-Z]{2,}", text) for text in texts):
        return texts[0] == texts[1]
    parts = [text.lower().split() for text in texts]
    if min(map(len, parts)) > 1:  # no solution, no solutions
        parts = [[part.removesuffix("s") for part in text] for text in parts]
    return parts[0] == parts[1] and (len(texts[0]) > 1 or texts[0] == texts[1])


# Short words whose letters stand in the order of the alphabet, forwards or backwards, as those of most products do.
_SHORT = {
    "act", "aft", "amp", "ant", "any", "apt", "art", "as", "be", "by", "do", "go", "he", "if", "in", "is", "it", "me", "no",
    "of", "on", "or", "so", "to", "up", "us", "we",
}  # fmt: skip


def _are_words(a: str, b: str) -> bool:
    """Whether two orders of two or three letters are words, `dog` and `god`, and not one product, `abc` and `bca`.

    A product has no e, i or o, and one order that is the alphabet's or no vowel at all.
    """
    if not re.fullmatch(r"[a-z]{2,3}", a) or len(set(a)) < len(a):
        return False
    ordered = "".join(sorted(a))
    if {ordered, ordered[::-1], a, b} & _SHORT:
        return True
    return len(a) == 3 and bool(set(a) & set("eio" if ordered in (a, b) else "aeiouy"))


# This finds a sign, a prime or a ratio: -a, a - b, BC', a : b. Words have none: - Monday, 'even', O'Neil, to-do, x-axis.
_OF_FORMULAS = re.compile(
    r"^\s*-(?!\s+[A-Za-z]{2}|[A-Z][a-z])|(?<![A-Za-z'])(?:[a-z]|[A-Z]{1,3})'(?![A-Za-z])"
    r"|(?<![A-Za-z]{3})(?<![A-Za-z]{3}\s)(?:(?<![A-Za-z]{2})[-:]|[-:](?![A-Za-z]{2}))(?!\s?[A-Za-z]{3})"
)


def _as_words(text: str) -> str | None:
    """Returns the words that a text consists of, None for other text."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()
    if r"\text" not in text and ("," in text or _OF_FORMULAS.search(text)):
        return None
    plain = re.sub(r"[\s.,;:!?\"'-]+", " ", plain).strip()
    if not re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+)*", plain):
        return None
    if r"\text" in text or re.fullmatch(r"[A-Z]{2,}", plain):
        return plain if len(plain) > 1 or r"\text" in text else None
    longest = max(plain.split(), key=len)
    product = len(longest) < 3 or (len(longest) == 3 and len(set(longest)) == 3 and longest.islower())
    return None if product and " " not in plain else plain


class _Time(NamedTuple):
    seconds: int
    half: str  # "a", "p" or ""


_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?/\d\d?/\d{4}")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*(?:\\text\{)?\s*(?:([ap])\.?\s?m\.?)?\s*\}?", re.IGNORECASE)

_NAMED_TIME = re.compile(r"(?:12(?::00)?\s*)?(?:\\text\{)?\s*(noon|midnight)\s*\}?", re.IGNORECASE)


def times(gold: str, answer: str) -> bool | None:
    """Compares times of day; a time without am or pm may stand for either half, and 20:34 is 8:34 pm. Dates are texts."""
    if _DATE.fullmatch(gold) or _DATE.fullmatch(answer):
        return False
    a, b = _time(gold), _time(answer)
    if a is None or b is None:
        return None
    if a.half and b.half:
        return _of_day(a) == _of_day(b)
    return a.seconds == b.seconds or _of_day(a) == _of_day(b)


def _time(text: str) -> _Time | None:
    if named := _NAMED_TIME.fullmatch(text.strip()):
        return _Time(12 * 3600, "p" if named[1].lower() == "noon" else "a")
    match = _CLOCK.fullmatch(text.strip())
    if not match or not (match[2] or match[4]):
        return None
    hours, minutes, seconds = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    if hours > 24 or minutes > 59 or seconds > 59:
        return None
    return _Time(hours * 3600 + minutes * 60 + seconds, (match[4] or "").lower())


def _of_day(time: _Time) -> int:
    if not time.half:
        return time.seconds
    return time.seconds % (12 * 3600) + (12 * 3600 if time.half == "p" else 0)
