"""Decides whether two answers are equal, by their kind: words, times, matrices, lists, points, sets, relations, quantities.

Answers are taken apart as texts in `notation`; the expressions at the bottom are compared by their values. What neither can
decide is asked of a function, for `mathematics` the math-verify workers. docs/verifiers.md lists what counts as equal.
"""

import re
from typing import NamedTuple

from amrsd_jax.tasks import equality, expressions, regions, units, values, words
from amrsd_jax.tasks.brackets import inside, outer, pieces
from amrsd_jax.tasks.notation import notation, squeezed
from amrsd_jax.tasks.values import APPROXIMATES, DECIMAL, ROUNDED, Ask, value

_ALTERNATIVES = re.compile(r"\\text\s*\{\s*OR\s*\}|\bOR\b")
_LEAD = re.compile(  # words before the answer itself
    r"(?:\\text\{[^{}]*?(?:\b(?:is|are|be|equals)|[:=])\s*\}|(?:[A-Za-z]{2,} ){1,12}(?:is|are|equals) (?=\S)"
    r"|(?:(?i:final |the )*(?i:answer|result|solution))\s?[:=]|[:=]|\\approx(?![A-Za-z])"
    r"|(?:\\text\{\s*)?(?i:about|around|roughly|approximately|approx\.)\s*\}?\s*(?=[-\d\\$]))\s*"
)
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|approx|equiv|in|subset|mid|to)(?![A-Za-z])")
_OF_REGIONS = re.compile(r"<|>|\\(?:cup|setminus|in|mathbb|le|ge|ne)(?![A-Za-z])")
_MEMBER = re.compile(r"[A-Za-z]\\in(?![A-Za-z])\s*(.*)", re.DOTALL)
_ANGLE = re.compile(r"\\angle\s*\{?([A-Z]{3})")  # not the product of three letters
_BUILDER = re.compile(r"\\\{\s*[A-Za-z](?:\\in\s*\\mathbb\{R\})?\s*[|:]([^|:]*)\\\}", re.DOTALL)  # {x | x > 2} is x > 2


def equal(gold: str, answer: str, ask: Ask) -> bool:
    """Whether an answer equals the gold answer or one of its alternatives (`a \\text{ OR } b`).

    Args:
      gold, answer: in LaTeX, code or plain text, of bounded length: nested brackets are taken apart one by one.
      ask: decides about two expressions that `expressions` cannot parse; it may raise.
    """
    currencies = units.currency(gold), units.currency(answer)
    if all(currencies) and currencies[0] != currencies[1]:
        return False
    golds = [notation(one) for one in _ALTERNATIVES.split(gold)]
    return all(any(_same(one, notation(other), ask) for one in golds) for other in _ALTERNATIVES.split(answer))


def _same(gold: str, answer: str, ask: Ask) -> bool:
    gold, answer = (words.symbols(_trimmed(text)) for text in (gold, answer))
    if squeezed(gold) == squeezed(answer) != "":
        return True
    if not gold or not answer or ("..." in gold) != ("..." in answer):
        return False
    if words.said(gold) != words.said(answer):
        return False
    gold, answer = _with_one_letter(gold, answer)
    angles = [sorted(min(name, name[::-1]) for name in _ANGLE.findall(text)) for text in (gold, answer)]
    if all(angles) and angles[0] != angles[1]:
        return False
    belongs = [_MEMBER.fullmatch(text) for text in (gold, answer)]
    if (belongs[0] is None) != (belongs[1] is None) and not _RELATION.search(answer if belongs[0] else gold):
        gold, answer = (match[1] if match else text for match, text in zip(belongs, (gold, answer), strict=True))
    for kind in (words.labels, words.times, words.roman, words.words):
        if (verdict := kind(gold, answer)) is not None:
            return verdict
    for kind in (_matrices, _regions, _lists, _relations):
        if (verdict := kind(gold, answer, ask)) is not None:
            return verdict
    return values.equal(gold, answer, ask)


_ANY_INTEGER = re.compile(
    r"(?<=\S),?\s*(?:\\text\{\s*(?:where|for|with)\s*\})?\(?([a-z])"
    r"(?:\\in\s*\\mathbb\{?Z\}?|\s*\\text\{\s*is an integer\s*\})\)?$"
)


def _with_one_letter(gold: str, answer: str) -> tuple[str, str]:
    r"""Returns two answers with one letter for any integer, `k\pi, k\in\mathbb{Z}`, and for the constant of integration.

    What the letter stands for may be missing in one of them.
    """
    found = [_ANY_INTEGER.search(text) for text in (gold, answer)]
    if any(found) and not _INEQUALITY.search(outer(gold[: found[0] and found[0].start()])):
        letters = [match[1] for match in found if match]
        gold, answer = (
            text[: match.start()] if match else text for text, match in zip((gold, answer), found, strict=True)
        )
        if letters[0] != letters[-1] and letters[0] not in answer:
            answer = re.sub(rf"(?<![\\A-Za-z]){letters[1]}(?![A-Za-z])", letters[0], answer)
    if gold.endswith("+C") and re.search(r"\+[ckK]$", answer):
        answer = answer[:-1] + "C"
    return gold, answer


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
        if (lead := _LEAD.match(text)) and lead.end() < len(text) and not words.qualifies(lead[0]):
            text = text[lead.end() :]
        if builder := _BUILDER.fullmatch(text):
            text = builder[1]
        if text.startswith("{") and _closes(text) == len(text) - 1:
            text = text[1:-1]
        content = inside(text) if text.startswith("(") and text.endswith(")") else None
        if content and len(pieces(content, (",", ";"))) == 1:
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


# ---------------------------------------------------------------- matrices

_MATRIX = re.compile(
    r"\\begin\{(?:[pbvBV]?(?:small)?matrix|array|cases|aligned|align\*?)\}(?:\{[^{}]*\})?((?:(?!\\begin).)*?)\\end\{[A-Za-z]+\*?\}",
    re.DOTALL,
)


def _matrices(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares matrices entry by entry in every environment, and a matrix of one column with a list."""
    if r"\begin" not in answer and (equations := _system(gold)):
        return _same(equations, answer, ask)
    if r"\begin" not in gold and (equations := _system(answer)):
        return _same(gold, equations, ask)
    a, b = _rows(gold), _rows(answer)
    if a is None or b is None or (r"\begin" not in gold and r"\begin" not in answer):
        return None
    if [len(row) for row in a] != [len(row) for row in b]:
        return False
    return all(_same(x, y, ask) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True))


def _system(text: str) -> str | None:
    """Returns the equations of a system as a list; None for other text."""
    rows = _rows(text) if r"\begin{cases}" in text else None
    if not rows or any(len(row) != 1 or "=" not in row[0] for row in rows):
        return None
    return ", ".join(row[0].rstrip(",; ") for row in rows)


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
    if not (_OF_REGIONS.search(gold) or _OF_REGIONS.search(answer)):
        return None
    a, b = regions.region(gold), regions.region(answer)
    if a is None or b is None:
        if r"\cup" in gold and r"\cup" in answer:
            return _matched(pieces(gold, (r"\cup",)), pieces(answer, (r"\cup",)), ask)
        return None
    if a[1] and b[1] and a[1] != b[1]:
        return False
    return regions.equal(a[0], b[0], values.near if values.has_point(gold, answer) else equality.close)


def _lists(gold: str, answer: str, ask: Ask) -> bool | None:
    """Compares lists, points and sets.

    The values of a bare list or of a set may stand in any order, as solutions do, but as often as in the other; a set and a list
    of points hold each once. A point has an order. Names are dropped where one side has none: `x=1, y=2` is the point (1, 2).
    """
    if (point := _named_point(gold)) and not _RELATION.search(outer(answer)):
        return _same(point, answer, ask)
    if (point := _named_point(answer)) and not _RELATION.search(outer(gold)):
        return _same(gold, point, ask)
    a, b = _items(gold), _items(answer)
    if _is_set_of_one_point(a) and b.bracket != "{":
        return _same(a.values[0], answer, ask)
    if _is_set_of_one_point(b) and a.bracket != "{":
        return _same(gold, b.values[0], ask)
    if len(a.values) < 2 and len(b.values) < 2:
        if "{" not in (a.bracket, b.bracket):
            return None
        empty = any(
            items.values[0].strip() == r"\emptyset" for items in (a, b)
        )  # the set of the empty set is not empty
        return not (empty and a.bracket != b.bracket) and _same(a.values[0], b.values[0], ask)
    for one, other in ((gold, answer), (answer, gold)):  # `1,22` is the decimal number 1.22 where the other is one
        if re.fullmatch(r"-?\d+,\d+", one) and DECIMAL.fullmatch(other):
            return _same(gold.replace(",", "."), answer.replace(",", "."), ask)
    for one, other in ((a, answer), (b, gold)):  # `0,5` is one half
        if len(one.values) == 1 and re.fullmatch(r"-?\d+,\d+", other) and _is_fraction(one.values[0]):
            return _same(gold.replace(",", "."), answer.replace(",", "."), ask)
    return _lists_agree(a, b, ask)


def _named_point(text: str) -> str | None:
    """Returns the point or set that a name is given, (1,2) of `P = (1,2)`; None for other text."""
    assigned = _assigned(text)
    return assigned[1] if assigned and inside(assigned[1]) and not inside(assigned[0]) else None


def _is_set_of_one_point(items: _Items) -> bool:
    return items.bracket == "{" and len(items.values) == 1 and _is_point(items.values[0])


def _is_fraction(text: str) -> bool:
    """Whether a text has a real value that is no integer."""
    number = value(text)
    return number is not None and expressions.is_real(number) and expressions.fraction(number).denominator != 1


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
    if sum(named) == 1 and "(" in brackets:  # (2,3) is y=3, x=2 as well
        a, b = (_in_order(items) if has else items for has, items in zip(named, (a, b), strict=True))
    order = any(has and len(set(items.names)) > 1 for has, items in zip(named, (a, b), strict=True))
    if order or brackets - {"", "{"}:
        return len(a.values) == len(b.values) and all(_same(x, y, ask) for x, y in zip(a.values, b.values, strict=True))
    return _matched(a.values, b.values, ask, once="{" in brackets)


def _in_order(items: _Items) -> _Items:
    """Sorts coordinates x, y and z by their names; other names stay as they are written."""
    if sorted(items.names) not in (["x", "y"], ["x", "y", "z"]):
        return items
    found = sorted(zip(items.names, items.values, strict=True))
    return _Items([value for _, value in found], [name for name, _ in found], items.bracket)


def _matched(a: list[str], b: list[str], ask: Ask, once: bool = False) -> bool:
    """Whether two lists hold the same values in some order; with `once`, or where all are points, repeated values count once."""
    if once or all(_is_point(item) for item in a + b):
        a, b = _distinct(a), _distinct(b)
    if len(a) != len(b):
        return False
    left = list(b)
    for item in a:
        for other in left:
            if _same(item, other, ask):
                left.remove(other)
                break
        else:
            return False
    return True


def _is_point(text: str) -> bool:
    content = inside(text)
    return content is not None and len(pieces(content, (",", ";"))) > 1


def _distinct(items: list[str]) -> list[str]:
    return list({squeezed(item): item for item in items}.values())


def _items(text: str) -> _Items:
    """Takes a list, point or set apart, with the names in `x=1, y=2` or `(x,y)=(1,2)`; other text is a list of one."""
    bracket, content = "", inside(text)
    if content is not None and (len(_split(content)) > 1 or text.startswith(r"\{")):
        bracket = _bracket(text, len(_split(content)))
        text = content
    found = [item for part in _split(text) for item in _both_signs(part)]
    named = [_assigned(item) for item in found]
    if len(found) > 1 and named[0] and not any(named[1:]):  # a = 4, -8, -10
        name = named[0][0]
        return _Items([named[0][1], *found[1:]], [name] * len(found), bracket)
    if (
        len(found) == 1 and named[0] and (points := inside(named[0][0])) and (content := inside(named[0][1]))
    ):  # (x,y) = (1,2)
        names, found = pieces(points, (",",)), pieces(content, (",", ";"))
        if len(names) == len(found):
            return _Items(found, names, "(")
    if all(named):
        return _Items([content for _, content in named], [name for name, _ in named], bracket)
    return _Items(found, [""] * len(found), bracket)


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
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text) or len(pieces(text, (",",))) > 1:
        return [text]
    upper = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", text))
    lower = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", text))
    return [re.sub(r"(^|[=({])\+", r"\1", upper), lower]


# ---------------------------------------------------------------- relations

_INEQUALITY = re.compile(r"<|>|\\(?:le|ge|ne|in)(?![A-Za-z])")

_NAME = re.compile(  # atomic, since `a(b)` can be read in two ways
    r"(?>\\(?:gcd|max|min|Pr|text\{[^{}]*\})\s*\([^()=]*\)"
    r"|\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\\angle\s*)?\{?(?:[A-Z]{1,3}|\\(?:alpha|beta|gamma|theta|phi))(?![A-Za-z])\}?"
    r"|\\(?:angle|triangle|overline|frac|vec|mathbb|mathbf|text\{[^{}]*\}|hat|bar|widehat|Delta|alpha|beta|gamma|theta|phi|lambda|mu"
    r"|sigma|rho|omega|tau|epsilon|pi|det|gcd|max|min|deg)(?![A-Za-z])\s*|[A-Za-z](?:_(?:\{[^{}]*\}|\w))?'*(?:\([^()=]*\)|\[[^\[\]=]*\])?|[{}|:/+*.\s()-])++"
)


def _assigned(text: str) -> tuple[str, str] | None:
    """Splits `name = value` into (name, value), of a chain `x = 2+3 = 5` the last value; None if it is no assignment.

    A name is one letter, or a product, sum or ratio of letters, with subscripts or arguments: `x_1`, `f(2)`, `m+n`, `AB`. A
    chain must be true: `x = 7 = 11` is none.
    """
    sides = pieces(text, ("=",))
    if len(sides) == 1:
        sides = [side.strip() for side in APPROXIMATES.split(text)]
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not _NAME.fullmatch(sides[0]):
        sides.reverse()  # 7 = x
    if len(sides) < 2 or "" in sides or inside(text) or _INEQUALITY.search(outer(text)):
        return None
    if _NAME.fullmatch(sides[0]) or _is_point_of_names(sides[0]):
        name, chain = sides[0], sides[1:]
    elif "=" in outer(text) and all(value(side) is not None for side in sides):
        name, chain = "", sides
    else:
        return None
    known = [number for number in map(value, chain) if number is not None]
    if name.startswith(("-", "+")) or any(not equality.close(number, known[-1], ROUNDED) for number in known[:-1]):
        return None
    return name, chain[-1]


def _is_point_of_names(text: str) -> bool:
    content = inside(text)
    return content is not None and all(_NAME.fullmatch(item) for item in pieces(content, (",",)))


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
    if a and not _RELATION.search(outer(answer)):
        return _same(a[1], answer, ask)
    if b and not _RELATION.search(outer(gold)):
        return _same(gold, b[1], ask)
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
    return values.undecided(gold, answer, ask) if verdict is None else verdict


def _functions(a: str, b: str) -> bool:
    """Whether two names are those of a function, y or f(x), which may stand for one another."""
    return all(re.fullmatch(r"y|[fgh]\([a-z]\)", name) for name in (a, b))


def _known_approximation(text: str) -> str:
    """Returns a of `a \\approx b` if b is a rounding of it; the text itself otherwise."""
    sides = [side.strip() for side in APPROXIMATES.split(text)]
    if len(sides) != 2:
        return text
    exact, rounded = pieces(sides[0], ("=",))[-1], sides[1]
    u, v = value(exact), value(rounded)
    if u is None or v is None:
        return text
    decimal = DECIMAL.fullmatch(units.split(rounded)[0])
    step = 10.0 ** -len(decimal[2]) if decimal else 0.5
    return sides[0] if abs(u - v) <= step else text


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
        ratio = equality.ratio((a, b), (c, d))
    except expressions.Unsupported:
        return None
    if ratio is None:
        return False
    return kind in ("=", r"\ne") or ratio > 0
