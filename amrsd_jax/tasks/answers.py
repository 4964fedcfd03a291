"""Decides whether two answers are equal, by their kind: words, times, matrices, lists, points, sets, relations, quantities.

Answers are taken apart as texts in `notation`; the expressions at the bottom are compared by their values. What neither can
decide is asked of a function, for `mathematics` the math-verify workers. docs/verifiers.md lists what counts as equal.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from amrsd_jax.tasks import expressions, regions, units
from amrsd_jax.tasks.brackets import inside, outer, pieces
from amrsd_jax.tasks.notation import notation, squeezed

ROUNDED = 1e-5  # largest relative difference of equal values where a decimal point may stand for rounding, our choice
STATED, GIVEN = (
    3,
    4,
)  # significant digits from which a decimal gold answer, and a decimal answer, may be rounded, our choice

Ask = Callable[[str, str], bool]

_ALTERNATIVES = re.compile(r"\\text\s*\{\s*OR\s*\}|\bOR\b")
_LEAD = re.compile(  # words before the answer itself
    r"(?:\\text\{[^{}]*?(?:\b(?:is|are|be|equals)|[:=])\s*\}|(?:[A-Za-z]{2,} ){1,12}(?:is|are|equals) (?=\S)"
    r"|(?:(?i:final |the )*(?i:answer|result|solution))\s?[:=]|[:=])\s*"
)
_QUALIFIED = re.compile(
    r"\bor (?:more|less|fewer|greater|higher|lower|above|below|another|so)\b|\b(?:at|the) (?:least|most)\b|\b(?:more|less|fewer"
    r"|greater|larger|smaller|higher|lower|other|rather) than\b|\b(?:not|no|never|cannot|wrong|incorrect|except|impossible|unless"
    r"|undefined|almost|nearly|up to|neither|nor|isn't|unknown|unlikely|above|below|between|minus|negative)\b|n't\b"
    r"|\b(?:over|under) (?=\d)",
    re.IGNORECASE,
)
_FUNCTIONS = r"sin|cos|tan|log|ln|exp|mod|gcd|lcm|max|min|det|dim|deg|arg|lim|sup|inf"
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|approx|equiv|in|subset|mid|to)(?![A-Za-z])")
_WORDS_IN_VALUE = re.compile(r"\\text\{([^{}]*)\}|(?<![\\A-Za-z])([A-Za-z]{4,})")
_MEMBER = re.compile(r"[A-Za-z]\\in(?![A-Za-z])\s*(.*)", re.DOTALL)
_BUILDER = re.compile(r"\\\{\s*[A-Za-z](?:\\in\s*\\mathbb\{R\})?\s*[|:]([^|:]*)\\\}", re.DOTALL)  # {x | x > 2} is x > 2
_DECIMAL = re.compile(r"-?(\d*)\.(\d+)(?:\*10\^\{(-?\d+)\})?")
_INTEGER = re.compile(r"-?\d+")


def equal(gold: str, answer: str, ask: Ask) -> bool:
    """Whether an answer equals the gold answer or one of its alternatives (`a \\text{ OR } b`).

    Args:
      gold, answer: in LaTeX, code or plain text, of bounded length: nested brackets are taken apart one by one.
      ask: decides about two expressions that `expressions` cannot parse; it may raise.
    """
    golds = [notation(one) for one in _ALTERNATIVES.split(gold)]
    return all(any(_same(one, notation(other), ask) for one in golds) for other in _ALTERNATIVES.split(answer))


def _same(gold: str, answer: str, ask: Ask) -> bool:
    gold, answer = _trimmed(gold), _trimmed(answer)
    if squeezed(gold) == squeezed(answer) != "":
        return True
    if not gold or not answer or ("..." in gold) != ("..." in answer):
        return False
    if _said(gold) != _said(answer):
        return False
    belongs = [_MEMBER.fullmatch(text) for text in (gold, answer)]
    if (belongs[0] is None) != (belongs[1] is None) and not _RELATION.search(answer if belongs[0] else gold):
        gold, answer = (match[1] if match else text for match, text in zip(belongs, (gold, answer), strict=True))
    for kind in (_labels, _words, _times, _matrices, _regions, _lists, _relations):
        verdict = kind(gold, answer, ask)
        if verdict is not None:
            return verdict
    return _quantities(gold, answer, ask)


def _trimmed(text: str) -> str:
    """Removes what surrounds an answer: words before it, braces and round brackets about all of it, a full stop, a comma."""
    while True:
        before = text
        text = text.replace("$", "").strip().strip(",;").strip()
        text = text.removesuffix("\\").strip()
        if text.endswith("}") and text.count("}") > text.count("{"):
            text = text[:-1].strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].strip()
        if (lead := _LEAD.match(text)) and lead.end() < len(text):
            text = text[lead.end() :]
        if builder := _BUILDER.fullmatch(text):
            text = builder[1]
        if text.startswith("{") and _closes(text) == len(text) - 1:
            text = text[1:-1]
        elif (
            text.startswith("(")
            and (content := inside(text))
            and text.endswith(")")
            and len(pieces(content, (",", ";"))) == 1
        ):
            text = content
        if text == before:
            return text


def _closes(text: str) -> int:
    """Returns the place of the brace that closes the first one, -1 without it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return place
    return -1


def _said(text: str) -> list[str]:
    """Returns what a text says about its value in words, such as `at least`."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    plain = re.sub(r"\b[A-Z]{2,}\b", " ", plain).lower()  # NO is a segment
    return sorted({re.sub(r"\s+", " ", found.strip()) for found in _QUALIFIED.findall(plain)})


# ---------------------------------------------------------------- words, labels and times


def _labels(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares an option's letter with the letter and the option's text: `C` and `C. x = 42`, or `(C) x = 42`."""
    for one, other in ((gold, answer), (answer, gold)):
        letter = re.fullmatch(r"(?:\\text\{)?\(?([A-H])\)?\}?", one)
        if letter and (label := re.match(r"(?:\\text\{)?(?:\(([A-H])\)|([A-H])[.:)])(?=[\s}]|[^\s=]|$)", other)):
            return letter[1] == (label[1] or label[2])
    return None


def _words(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares words, which are no products of variables: `even`, `HTH`, `\\text{Monday}`; case counts for capitals alone."""
    texts = [_as_words(text) for text in (gold, answer)]
    if texts[0] is None and texts[1] is None:
        return None
    if texts[0] is None or texts[1] is None:  # `\text{AB}` may stand for the expression AB
        plain = [re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip() for text in (gold, answer)]
        return plain[0] == plain[1] or (plain[0].lower() == plain[1].lower() and min(map(len, plain)) > 2)
    if all(re.fullmatch(r"[A-Z]{2,}", text) for text in texts):
        return texts[0] == texts[1]
    return texts[0].lower().split() == texts[1].lower().split() and (len(texts[0]) > 1 or texts[0] == texts[1])


def _as_words(text: str) -> str | None:
    """Returns the words that a text consists of, None for other text."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()
    if "," in text and r"\text" not in text:
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


def _times(gold: str, answer: str, ask: Ask) -> bool | None:
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


# ---------------------------------------------------------------- matrices

_MATRIX = re.compile(
    r"\\begin\{(?:[pbvBV]?(?:small)?matrix|array|cases|aligned|align\*?)\}(?:\{[^{}]*\})?((?:(?!\\begin).)*?)\\end\{[A-Za-z]+\*?\}",
    re.DOTALL,
)


def _matrices(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares matrices entry by entry in every environment, and a matrix of one column or row with a list."""
    a, b = _rows(gold), _rows(answer)
    if a is None or b is None or (r"\begin" not in gold and r"\begin" not in answer):
        return None
    if [len(row) for row in a] != [len(row) for row in b]:
        return False
    return all(_same(x, y, ask) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))


def _rows(text: str) -> list[list[str]] | None:
    """Returns the entries of a matrix, or of a list in brackets as a column; None for other text."""
    bare = text.replace(r"\hline", "").strip()
    if (
        match := _MATRIX.fullmatch(bare)
        or _MATRIX.fullmatch(bare.strip("([|])} "))
        or _MATRIX.fullmatch(bare.strip("([|]) "))
    ):
        rows = [row for row in re.split(r"\\cr(?![A-Za-z])", match[1]) if row.strip()]
        return [[cell.strip() for cell in row.split("&")] for row in rows]
    content = inside(text)
    if content is None or text.startswith(r"\{"):
        return None
    items = pieces(content, (",", ";"))
    nested = [inside(item) for item in items]
    return [pieces(row, (",",)) for row in nested] if all(nested) else [[item] for item in items]


# ---------------------------------------------------------------- lists, points and sets


class _Items(NamedTuple):
    values: list[str]
    names: list[str]  # what each value is said to be, "" without a name
    bracket: str  # "" for a bare list, "(" for a point, which may be an open interval, "[]", "[)", "(]", "{" for a set


def _regions(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares sets of real numbers where one side is an inequality or a union, or both are intervals."""
    mark = re.compile(r"\\(?:cup|setminus|in|mathbb)(?![A-Za-z])|<|>|\\(?:le|ge|ne)(?![A-Za-z])")
    if not (mark.search(gold) or mark.search(answer)):
        return None
    a, b = regions.region(gold), regions.region(answer)
    if a is None or b is None:
        if r"\cup" in gold and r"\cup" in answer:
            return _matched(pieces(gold, (r"\cup",)), pieces(answer, (r"\cup",)), ask)
        return None
    if a[1] and b[1] and a[1] != b[1]:
        return False
    return regions.equal(a[0], b[0], _near if _has_point(gold, answer) else expressions.close)


def _lists(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares lists, points and sets.

    The values of a bare list or of a set may stand in any order, as solutions do, but as often as in the other; a set and a list
    of points hold each once. A point has an order. Names are dropped where one side has none: `x=1, y=2` is the point (1, 2).
    """
    a, b = _items(gold), _items(answer)
    if len(a.values) < 2 and len(b.values) < 2:
        return _same(a.values[0], b.values[0], ask) if "{" in (a.bracket, b.bracket) else None
    for one, other in ((gold, answer), (answer, gold)):  # `1,22` is the decimal number 1.22 where the other is one
        if re.fullmatch(r"-?\d+,\d+", one) and _DECIMAL.fullmatch(other):
            return _same(gold.replace(",", "."), answer.replace(",", "."), ask)
    return _lists_agree(a, b, ask)


def _lists_agree(a: _Items, b: _Items, ask: Ask) -> bool:
    if len(a.values) == 1 and len(b.values) == 1:
        return _same(a.values[0], b.values[0], ask)
    brackets = {a.bracket, b.bracket}
    if len(brackets) > 1 and (brackets == {"(", "{"} or any(len(bracket) > 1 for bracket in brackets)):
        return False
    named = all(a.names), all(b.names)
    if all(named):
        return set(a.names) == set(b.names) and all(
            _matched(
                *([v for v, n in zip(items.values, items.names, strict=True) if n == name] for items in (a, b)), ask
            )
            for name in set(a.names)
        )
    order = any(has and len(set(items.names)) > 1 for has, items in zip(named, (a, b), strict=True))
    if order or brackets - {"", "{"}:
        return len(a.values) == len(b.values) and all(_same(x, y, ask) for x, y in zip(a.values, b.values, strict=True))
    return _matched(a.values, b.values, ask, once="{" in brackets)


def _matched(a: list[str], b: list[str], ask: Ask, once: bool = False) -> bool:
    """Whether two lists hold the same values in some order; with `once`, or where all are points, repeated values count once."""
    if once or all(_is_point(value) for value in a + b):
        a, b = _distinct(a), _distinct(b)
    if len(a) != len(b):
        return False
    left = list(b)
    for value in a:
        for other in left:
            if _same(value, other, ask):
                left.remove(other)
                break
        else:
            return False
    return True


def _is_point(text: str) -> bool:
    content = inside(text)
    return content is not None and len(pieces(content, (",", ";"))) > 1


def _distinct(values: list[str]) -> list[str]:
    return list({squeezed(value): value for value in values}.values())


def _items(text: str) -> _Items:
    """Takes a list, point or set apart, with the names in `x=1, y=2` or `(x,y)=(1,2)`; other text is a list of one."""
    bracket, content = "", inside(text)
    if content is not None and (len(_split(content)) > 1 or text.startswith(r"\{")):
        bracket = _bracket(text, len(_split(content)))
        text = content
    values = [value for value in _split(text) for value in _both_signs(value)]
    named = [_assigned(value) for value in values]
    if len(values) > 1 and named[0] and not any(named[1:]):  # a = 4, -8, -10
        name = named[0][0]
        return _Items([named[0][1], *values[1:]], [name] * len(values), bracket)
    if (
        len(values) == 1 and named[0] and (points := inside(named[0][0])) and (content := inside(named[0][1]))
    ):  # (x,y) = (1,2)
        names, values = pieces(points, (",",)), pieces(content, (",", ";"))
        if len(names) == len(values):
            return _Items(values, names, "(")
    if all(named):
        return _Items([value for _, value in named], [name for name, _ in named], bracket)
    return _Items(values, [""] * len(values), bracket)


def _bracket(text: str, length: int) -> str:
    """Returns the kind of brackets about `length` values, see `_Items`: three numbers in square brackets are no interval."""
    if text.startswith(r"\{"):
        return "{"
    ends = text[0] + text[-1]
    return ends if length == 2 and ends in ("[]", "[)", "(]") else "("


def _split(text: str) -> list[str]:
    """Splits a list at commas, semicolons, `and` and `or`; in `p=5,q=2; p=7,q=2` each solution becomes a point."""
    parts = [part for part in pieces(text, (";", "and", "or")) if part.strip(",")]
    inner = [[item for item in pieces(part.strip(","), (",",)) if item] for part in parts]
    sizes = {len(items) for items in inner}
    if len(parts) > 1 and sizes and min(sizes) > 1 and len(sizes) == 1 and (";" in text or "=" in text):
        return [f"({','.join(items)})" for items in inner]
    return [item for items in inner for item in items]


def _both_signs(text: str) -> list[str]:
    r"""Returns the two values of `a \pm b`, or the text itself."""
    if not re.search(r"\\pm(?![A-Za-z])", text) or len(pieces(text, (",",))) > 1:
        return [text]
    upper = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", text))
    lower = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", text))
    return [re.sub(r"(^|[=({])\+", r"\1", upper), lower]


# ---------------------------------------------------------------- relations

_NAME = re.compile(  # atomic, since `a(b)` can be read in two ways
    r"(?>\\(?:angle|triangle|overline|frac|vec|mathbb|mathbf|text\{[^{}]*\}|hat|bar|widehat|Delta|alpha|beta|gamma|theta|phi|lambda|mu"
    r"|sigma|rho|omega|tau|epsilon|pi|det|gcd|max|min|deg)(?![A-Za-z])\s*|[A-Za-z](?:_(?:\{[^{}]*\}|\w))?'*(?:\([^()=]*\)|\[[^\[\]=]*\])?|[{}|:/+*.\s()-])++"
)


def _assigned(text: str) -> tuple[str, str] | None:
    """Splits `name = value` into (name, value), of a chain `x = 2+3 = 5` the last value; None if it is no assignment.

    A name is one letter, or a product, sum or ratio of letters, with subscripts or arguments: `x_1`, `f(2)`, `m+n`, `AB`. A
    chain must be true: `x = 7 = 11` is none.
    """
    sides = pieces(text, ("=",))
    if len(sides) == 1:
        sides = [side.strip() for side in _APPROXIMATES.split(text)]
    if len(sides) < 2 or "" in sides or inside(text) or _INEQUALITY.search(outer(text)):
        return None
    if _NAME.fullmatch(sides[0]) or _is_point_of_names(sides[0]):
        name, values = sides[0], sides[1:]
    elif "=" in outer(text) and all(_value(side) is not None for side in sides):
        name, values = "", sides
    else:
        return None
    known = [value for value in map(_value, values) if value is not None]
    if name.startswith(("-", "+")) or any(not expressions.close(value, known[-1], ROUNDED) for value in known[:-1]):
        return None
    return name, values[-1]


_APPROXIMATES = re.compile(r"\\approx(?![A-Za-z])")
_INEQUALITY = re.compile(r"<|>|\\(?:le|ge|ne|in)(?![A-Za-z])")


def _is_point_of_names(text: str) -> bool:
    content = inside(text)
    return content is not None and all(_NAME.fullmatch(item) for item in pieces(content, (",",)))


def _value(text: str):
    """Returns the value of an expression without variables, None for other text."""
    value, _ = units.split(_APPROXIMATES.split(text)[0])
    expression = expressions.parse(value.strip().rstrip("."))
    try:
        return expression.at({}) if expression is not None and not expression.names else None
    except expressions.Unsupported:
        return None


def _relations(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares equations and inequalities; a relation equals a value only as the assignment of one name."""
    if not _RELATION.search(outer(gold) + outer(answer)):
        return None
    gold, answer = _known_approximation(gold), _known_approximation(answer)
    a, b = _assigned(gold), _assigned(answer)
    if a and b:
        if a[0] == b[0] or not a[0] or not b[0] or _functions(a[0], b[0]):
            return _same(a[1], b[1], ask)
        return _equations(gold, answer)
    for assigned, other in ((a, answer), (b, gold)):
        if assigned and not _RELATION.search(outer(other)):
            return _same(*((assigned[1], other) if assigned is a else (other, assigned[1])), ask)
    marks = _RELATION.search(outer(gold)), _RELATION.search(outer(answer))
    if not any(marks):
        return _same(gold, answer, ask)
    if not all(marks):
        return False
    if r"\in" in gold and r"\in" in answer:
        left, right = re.split(r"\\in(?![A-Za-z])", gold, maxsplit=1), re.split(r"\\in(?![A-Za-z])", answer, maxsplit=1)
        if len(left) == len(right) == 2:
            return squeezed(left[0]) == squeezed(right[0]) and _same(left[1], right[1], ask)
    verdict = _equations(gold, answer)
    return _undecided(gold, answer, ask) if verdict is None else verdict


def _functions(a: str, b: str) -> bool:
    """Whether two names are those of a function, y or f(x), which may stand for one another."""
    return all(re.fullmatch(r"y|[fgh]\([a-z]\)", name) for name in (a, b))


def _known_approximation(text: str) -> str:
    """Returns the exact side of `a \\approx b` if b is a rounded, else the text."""
    sides = [side.strip() for side in _APPROXIMATES.split(text)]
    if len(sides) != 2:
        return text
    exact, rounded = pieces(sides[0], ("=",))[-1], sides[1]
    u, v = _value(exact), _value(rounded)
    if u is None or v is None:
        return text
    decimal = _DECIMAL.fullmatch(units.split(rounded)[0])
    return (
        sides[0] if abs(u - v) <= 10.0 ** -(len(decimal[2]) if decimal else 0) * (0.51 if not decimal else 1) else text
    )


def _equations(gold: str, answer: str) -> bool | None:
    """Whether two equations or inequalities of one relation have proportional differences of their sides."""
    sides = []
    for text in (gold, answer):
        relation = _RELATION.findall(text)
        parts = _RELATION.split(text)
        if len(relation) != 1 or len(parts) != 2:
            return None
        left, right = expressions.parse(parts[0].strip()), expressions.parse(parts[1].strip())
        if left is None or right is None:
            return None
        if relation[0] in (">", r"\ge"):
            left, right, relation[0] = right, left, {">": "<", r"\ge": r"\le"}[relation[0]]
        sides.append((relation[0], left, right))
    (kind, a, b), (other, c, d) = sides
    if kind != other:
        return False
    try:
        ratio = expressions.ratio((a, b), (c, d))
    except expressions.Unsupported:
        return None
    if ratio is None:
        return False
    return kind in ("=", r"\ne") or ratio > 0


# ---------------------------------------------------------------- quantities


def _quantities(gold: str, answer: str, ask: Ask) -> bool:
    """Compares values with units or percent signs.

    Per cent are hundredths, `35%` = 0.35, or the unit of the question, `35%` = 35; a bare gold answer of at most 1 is a share, so
    that 0.5% is not 1/2.
    """
    gold, gold_unit = units.split(gold)
    answer, answer_unit = units.split(answer)
    if not gold_unit.agrees(answer_unit):
        return False
    shares = gold.endswith("%"), answer.endswith("%")
    gold, answer = (re.sub(r"\s*%$", "", text).strip() for text in (gold, answer))
    if _ratio(gold) is not None and _ratio(answer) is not None:
        return _proportional(_ratio(gold), _ratio(answer), ask)
    if not any(shares) or all(shares):
        return _values(gold, answer, ask)
    if shares[0]:
        return _values(gold, answer, ask) or _values(f"({gold})/100", answer, ask)
    share = _value(gold)
    if share is not None and abs(share) <= 1:
        return _values(gold, f"({answer})/100", ask)
    return _values(gold, answer, ask) or _values(gold, f"({answer})/100", ask)


def _ratio(text: str) -> list[str] | None:
    parts = pieces(text, (":",))
    return parts if len(parts) > 1 and all(parts) else None


def _proportional(a: list[str], b: list[str], ask: Ask) -> bool:
    if len(a) != len(b):
        return False
    if all(map(_same, a, b, [ask] * len(a))):
        return True
    return all(_same(f"({x})({b[0]})", f"({y})({a[0]})", ask) for x, y in zip(a, b, strict=True))


def _values(gold: str, answer: str, ask: Ask) -> bool:
    """Compares two expressions, a decimal number among them with regard to its rounding."""
    base = [re.fullmatch(r"(-?[\dA-F]+)_\{?(\d+)\}?", text) for text in (gold, answer)]
    if any(base):  # a base may be missing, as a unit may
        digits = [match[1] if match else text for match, text in zip(base, (gold, answer), strict=True)]
        return bool(base[0]) and digits[0] == digits[1] and (base[1] is None or base[0][2] == base[1][2])
    gold, answer = (re.sub(r"(?<=[^:]):(?=[^:])", "/", text) for text in (gold, answer))
    if any(_dangling(text) or re.search(r"\d \d", text) for text in (gold, answer)):
        return False
    a, b = expressions.parse(gold), expressions.parse(answer)
    if a is None or b is None:
        return _undecided(gold, answer, ask)
    try:
        variables = a.names | b.names
        if (verdict := expressions.same(a, b, ROUNDED if variables and _has_point(gold, answer) else None)) is None:
            return _undecided(gold, answer, ask)
        if verdict or variables:
            return verdict
        u, v = a.at({}), b.at({})
        return _rounds(gold, answer, u, v) or (_has_point(gold, answer) and _near(u, v))
    except expressions.Unsupported:
        return _undecided(gold, answer, ask)


def _undecided(gold: str, answer: str, ask: Ask) -> bool:
    """Asks about two values, unless words or a relation in one of them say something that the other does not."""
    plain = [re.sub(r"\\(?:begin|end)\{[^{}]*\}", "", text) for text in (gold, answer)]
    words = [sorted("".join(found) for found in _WORDS_IN_VALUE.findall(text)) for text in plain]
    return words[0] == words[1] and outer(gold).count("=") == outer(answer).count("=") and ask(gold, answer)


def _near(u, v) -> bool:
    """Whether two values agree to six decimals, and in their first digits."""
    return bool(abs(u - v) <= 1e-6) and expressions.close(u, v, ROUNDED)


def _has_point(gold: str, answer: str) -> bool:
    return bool(re.search(r"\.\d|\d\.", re.sub(r"\.\d*\\overline", "", gold + " " + answer)))


def _dangling(text: str) -> bool:
    """Whether a text ends in an operator, as `7+`: nothing that has a value."""
    return bool(re.search(r"[-+*/^=]$", text))


def _rounds(gold: str, answer: str, u, v) -> bool:
    """Whether one value is a decimal number, with digits enough, to which the exact value of the other is rounded or cut."""
    if expressions.imaginary(u) or expressions.imaginary(v):
        return False
    for text, rounded, other, exact, digits in ((gold, u, answer, v, STATED), (answer, v, gold, u, GIVEN)):
        decimal = _DECIMAL.fullmatch(text)
        if not decimal or _DECIMAL.fullmatch(other) or _INTEGER.fullmatch(other):
            continue
        places = len(decimal[2]) - int(decimal[3] or 0)
        if abs(places) > 1000 or len((decimal[1] + decimal[2]).lstrip("0")) < digits:
            continue
        step = Fraction(10) ** -places
        difference = abs(expressions.fraction(rounded) - expressions.fraction(exact))
        cut = abs(rounded) <= abs(exact) and difference < step
        if difference <= step / 2 or cut:
            return True
    return False
