"""Finds the answer in a sentence or in the last line of a reply: its formulas, its last expression, its number.

As in `replies`, the time is linear in the length of a text.
"""

import re
from decimal import Decimal

from amrsd_jax.tasks import numerals, operations, units
from amrsd_jax.tasks.exclamations import without_exclamation

SENTENCE = 2_000  # characters behind "the answer is" that may hold the answer, our choice
_DELIMITER = re.compile(r"\\\$|\$\$?|\\[()\[\]]")
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
DOUBT = (  # "I doubt", "it is unlikely that", but not "no doubt"
    r"(?:(?<![Nn]o )(?<![Ll]ittle )(?<![Aa]ny )(?<!ithout )(?<!ithout a )(?<!eyond )(?<!eyond a )(?<!reasonable )(?<!room for )"
    r"(?<!shadow of a )\bdoubt|\bunlikely(?= (?:that|to be|the answer)))\b"
)
DENIAL = r"(?:\b(?:not|cannot|never|no|non|não|ne|nicht|pas|не|niet)\b|\bn['’]|n['’]t\b|[不非])"
IS = re.compile(r"\b(?:is|are|est|ist)\b|[是为為]")
TAKEN_BACK = re.compile(
    r"[,.]? (?:but )?(?:that|this|it|which)(?: is|['’]s| was) (?:wrong|incorrect|not (?:right|correct)(?! now))\b",
    re.IGNORECASE,
)
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
LETTERS_OF_FORMULAS = set(
    "and or sin cos tan cot sec csc log ln exp sqrt pi mod cm km mm kg ft if for gcd lcm max min frac text".split()  # noqa: SIM905  (a list fills twenty lines)
)
_TAGS = re.compile(r"</?(?:b|i|u|em|strong|mark|code|span)>", re.IGNORECASE)
_MARKS = re.compile(  # which end what stands before them
    r"(?i:</?(?:answer|final|final_answer|solution|response|result|output|reasoning|think)>|<\|[a-z_]{1,30}\|>|</?[a-z]{1,9}_of_turn>)"
    r"|</?s>"
)
_QUOTED = re.compile(r"^['\"“‘]([^'\"“”‘’]*)['\"”’]\.?$")
_REMARK = re.compile(  # "8, not 9", "8 because 2^3 = 8"
    r"(?<=[\w)}$%])(?:,? (?:because|since)\b|,? (?:and |but |rather than |instead of )?\(?(?:and )?not (?!equal)|"
    r",? (?:rather than|instead of|although|even though|though|whereas) ).*",
    re.DOTALL,
)
_BEFORE_RIGHT = re.compile(  # "not 9 but 8", "could be 9, but it's actually 8"
    r"^not [^\n]{1,40}?,? but (?:rather )?|^[^\n]{1,60}?,? but (?:it|that|the answer)(?: is|['’]s) (?:actually|really|in fact) "
)
_OTHER_NUMBER = re.compile(  # "6, not 7", "6 rather than 7", "6, although some think it is 7"
    r"(?<=[\d)}$%*])(?:,? (?:and |but )?\(?not|,? (?:rather than|instead of)) [-$\\(*]{0,3}\d[\d.,]*%?[*$)]{0,3}[.!]?\s*$"
    r"|(?<=[\d)}$%*]),? (?:although|even though|though|whereas) [^\n]*$"
)
_OTHERS_THINK = (
    r"\b(?:(?:[Yy]ou|[Ss]ome(?: people| students)?|[Mm]any|[Pp]eople|[Ss]tudents|[Oo]ne(?= (?:might|may|could|would)\b)) "
    r"(?:(?:might|may|could|would|will) )?(?:\w+ )?(?:think|say|guess|believe|argue|claim(?= (?:that|it|the answer)\b))"
    r"|[Cc]ommon (?:mistake|error|misconception) (?:is|would be)(?: to (?:say|think|claim|believe|assume))?)\b"
)
_THOUGHT_BY_OTHERS = re.compile(
    rf"{_OTHERS_THINK}(?:(?!,? (?:but|yet|however|so) |[;,] (?:the|it|so|but|yet|however)\b)[^.\n])*\.?"
)
SAID_BY_OTHERS = re.compile(rf"{_OTHERS_THINK}(?: that)?(?: the)?(?: final| correct| right)?\s*$")
_NO_ANSWER = re.compile(r"\\(?:blacksquare|square|Box|qed|therefore)")
_WHERE = re.compile(r"\b(?:where|with|here)\b")
_VALUE_OF = re.compile(r"\s*(?:(?P<name>[A-Za-z])\s*=)?(?=[^=<>\d]*\d)(?![^=<>]*(?:[=<>]|\\(?:le|ge|ne|in)(?![a-z])))")
_BETWEEN = re.compile(r"\s*(?:,|,?\s*(?:and|or))\s*")
_DENIED = re.compile(
    rf"(?:(?:{DENIAL}|^\W*(?:Not|Never)\b)"
    r"(?: equal to| be| think (?:that )?(?:the (?:final )?(?:answer|result|solution) is|it is|it's))?"
    rf"|{DOUBT}(?:(?!\b(?:but|so|yet|however)\b)[^.\d\n]){{0,60}}?)"
    r" [-$\\(]{0,3}\d[\d.,]*[.!)$]{0,3}\s*$"
)
_RUN = re.compile(
    r"(?:\\[A-Za-z]+\s?|\\[%,;! ]|[\d.,:]+|[-+*/^_=<>()\[\]{}|!%°²³½¼¾π√×·−≤≥≠≈±∞∪∩∈]"
    r"|(?<![^\W\d_²³])(?<!['’])[A-Za-z](?![^\W\d_²³])"
    r"|(?<![^\W\d_])(?:sqrt|cbrt|pi|sin|cos|tan|log|ln|exp)(?![^\W\d_])"
    r"|[ \t$]|\\\$)+"
)
_PART_OF_UNIT = r"([A-Za-zµ]{1,20})(?:[²³]|[23](?!\d)|\^\{?-?\d\}?)?"
_UNIT = re.compile(rf" ?{_PART_OF_UNIT}(?:[/·*]{_PART_OF_UNIT})?")
_PER_UNIT = re.compile(r" per ([A-Za-z]{1,20})(?:[²³]|\^\{?\d\}?)")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:/\d+)?|\.\d+)", re.ASCII)
_BECAUSE = re.compile(r"^(.{0,1000}?\d[^,;.]{0,40}),? (?:because|since) (?!.*(?:\b(?:so|thus|therefore|hence)\b|=)).*$")
_ASIDE = re.compile(r"\s\((?=[^()]*[A-Za-z]{3})[^()]*\)")  # "12 (see step 3)"
_CALLED_WRONG_NUMBER = re.compile(
    r"(?<![\w.])(-?\d[\d.,]{0,30})[$)*]{0,3} (?:is|was) (?:not|wrong|incorrect|false)\b[^.\d]{0,60}[.!]?\s*$"
)
_EITHER = re.compile(  # "x = 6 or x = 7", "6 or 7"
    r"(?<![A-Za-z])(?P<name>[A-Za-z]) ?= ?(?P<one>[^\s,;=]+),? (?:or|and) (?P=name) ?= ?(?P<other>[^\s,;=]+?)[.\s]*$"
    r"|(?<![\w.,/+*^=-])(?P<number>-?\d{1,30}) or (?P<next>-?\d{1,30})[.!\s]*$"
)
_BOUND = re.compile(  # "x is at least 2", "At least 2.", "2 or more"
    r"(?:(?<![\w'’])[a-zA-Z] (?:is|must be|should be|can be)"
    r"|^\W*(?:(?:it|the (?:final )?(?:answer|result|value|total|sum))(?: is|['’]s| lies))?) ?"
    r"(?P<bound>(?:not )?(?:(?:at (?:least|most)|up to|(?:more|less|greater|larger|smaller|fewer) than)"
    r"|between -?\d[\d.]{0,30} and) -?\d[\d.]{0,30}?|\d[\d.]{0,30} or (?:more|less|fewer))[.!\s]*$",
    re.IGNORECASE,
)
_PLAIN_RUN = re.compile(r"[\d\s.,$\\%€£¥-]*")
_MULTIPLE = re.compile(rf"(?<![\d,.])(\d{{1,9}}(?:\.\d{{1,9}})?) ({'|'.join(numerals.MULTIPLES)})(?![a-z])")
_MINUS = re.compile(  # "it is minus 7" and "negative 7", but no difference, "x minus 7"
    r"((?:^|\b(?:is|are|be|was|been|equals?|gives?|gets?|got|yields?|becomes?|makes?|obtains?|in|to|as|therefore|actually|really|just"
    r"|simply|exactly|then|so|answer|result|value|sum)\b|[=:(*>])[\s*$]{0,4})minus\s{1,3}(?=[\d\\])|\bnegative\s{1,3}(?=[\d\\])",
    re.IGNORECASE | re.MULTILINE,
)
_DASH = re.compile(r"((?:\b(?:is|are|equals?|gives?)|[=(])\s{0,2})[-–‒‐‑]\s{0,3}(?=[\d\\])", re.IGNORECASE)  # no bullet
_SAID = re.compile(
    r"\b(?:not|no|never|than|anything but|different from|least|most|or|up to|under|over|above|below|between|am|pm)\b|"
    r"n't\b|[ap]\.m\b",
    re.IGNORECASE,
)


def without_tags(text: str) -> str:
    """Returns a text without tags of type, and with a space for each mark that ends an answer, such as `</answer>`."""
    return _MARKS.sub(" ", _TAGS.sub("", text))


def of_sentence(text: str) -> str | None:
    """Returns the answer in a sentence: its formulas, its number, or all of it."""
    text = signed(in_values(without_tags(text.replace("**", "").replace(r"\$", ""))).strip().strip("*_`").strip())
    text = _QUOTED.sub(r"\1", text)
    text = _REMARK.sub("", _BEFORE_RIGHT.sub("", text))
    if found := formulas(text):
        outside = _outside(text, found)
        # In "the largest $n$ is 34" the formula is a name, and the number is the answer.
        if (
            (behind := IS.split(outside)[-1]) != outside
            and numbers_of(behind)
            and not re.search(r"\d|\\", found[-1][0])
        ):
            return last_expression(behind)
        if len(found) == 1:
            return _with_unit(text, found[0])
        either = re.search(r"\bor\b", outside)
        return (" or " if either else ", ").join(content.strip(" ,") for content, _, _ in found)
    text = re.sub(r"\.$", "", text.replace("$", "")).strip()
    if (behind := IS.split(text)[-1].strip()) != text and numbers_of(behind):
        text = behind
    if number := _only_number(text):
        return number
    if (
        len(re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[A-Za-z]+", "", text))) > 3
        and not _SAID.search(text)
        and (values := numbers_of(text))
        and (len(values) == 1 or numbers_of(operations.first_acted(text))[:1] != values[:1])
    ):
        return last_expression(text) if "=" in text or len(values) == 1 else values[0]
    return re.sub(r"\s*[^\W\d_a-zA-Z\u0370-\u03ff²³¹⁰⁴-⁹½¼¾]+$", "", text) or None


def _with_unit(text: str, formula: tuple[str, int, int]) -> str:
    """Returns a formula with the per cent sign, or the words that act on it, that stand outside its delimiters."""
    content, start, end = formula
    if (value := operations.acted(text[:start], content, text[end:])) != content:
        return value
    sign = re.match(r"\s?(?:\\?%|percent\b|per cent\b|pct\b)", text[end : end + 12])
    return content + r"\%" if sign and "%" not in content else content


def _outside(text: str, found: list[tuple[str, int, int]]) -> str:
    pieces, place = [], 0
    for _, start, end in found:
        pieces.append(text[place:start])
        place = end
    return " ".join([*pieces, text[place:]])


def formulas(text: str) -> list[tuple[str, int, int]]:
    """Returns (content, start, end) of each formula in `$...$`, `$$...$$`, `\\(...\\)` or `\\[...\\]`.

    A dollar sign before an amount, as in `$5 + $7 = $12`, opens no formula: its content would end in an operator or hold words.
    """
    marks = list(_DELIMITER.finditer(text))
    result, k = [], 0
    while k < len(marks) - 1:
        opening, closing = marks[k], marks[k + 1]
        k += 1
        wanted = _CLOSING.get(opening[0])
        if wanted is None:
            continue
        while closing[0] == r"\$" and wanted != r"\$" and k < len(marks) - 1:
            k += 1
            closing = marks[k]
        content = text[opening.end() : closing.start()]
        if closing[0] != wanted or not content.strip() or (opening[0] == "$" and _is_money(content)):
            continue
        result.append((content.strip(), opening.start(), closing.end()))
        k += 1
    return result


def _is_money(content: str) -> bool:
    """Whether what stands between two dollar signs begins with an amount and goes on as a text, not as a formula."""
    if len(content) > SENTENCE or content.startswith("?"):
        return True
    if not re.match(r"-?[\d.]", content.strip()):
        return False
    plain = re.sub(r"\\(?:text|mathrm|mbox|textbf)\s?\{[^{}]*\}", "", content).strip()
    return (
        bool(re.search(r"(?:\s(?:x|×|and|or|if|for)|[-+*/=\\])$|\.\s", plain))
        or any(word.lower() not in LETTERS_OF_FORMULAS for word in WORD.findall(plain))
    )  # fmt: skip


def of_last_line(text: str) -> str | None:
    """Returns the last formula that ends on the last line, else the last expression in it; None without one."""
    text = text.rstrip()
    last = text.rfind("\n") + 1
    begin = 0 if text[last:].strip() in (r"\]", "$$", r"\)") or "\\]" in text[last:] else last
    found = formulas(text[begin:])
    while found and _NO_ANSWER.fullmatch(found[-1][0]):
        found.pop()
    # In "$x = 12$, where $y$ is ..." the last formula is a name.
    values = [formula for formula in found if re.search(r"\d", formula[0])]
    if values and _WHERE.search(text[begin + values[-1][2] : begin + found[-1][1]]):
        found = values
    if found and found[-1][2] + begin > last:
        alike = _listed(text[begin:], found)
        if len(alike) > 1 and not numbers_of(_plain(text[begin + found[-1][2] :])):
            return ", ".join(content for content, _, _ in alike)
        behind = text[begin + found[-1][2] :]
        sign = _with_unit(text[begin:], found[-1])
        if not numbers_of(_plain(behind)) or len(found[-1][0]) > 2:
            return sign
        return last_expression(behind)
    return last_expression(text[last:])


def _listed(text: str, found: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Returns the last formulas that make one list: values, or values of one name, with only `,`, `and` or `or` between them."""
    names = [_VALUE_OF.match(content) for content, _, _ in found]
    start = len(found) - 1
    while start > 0 and names[start - 1] and names[start] and names[start - 1]["name"] == names[start]["name"]:
        if not _BETWEEN.fullmatch(text[found[start - 1][2] : found[start][1]]):
            break
        start -= 1
    return found[start:]


def in_values(text: str) -> str:
    """Returns a text with signs and digits for words that make a value of several numbers: `2000000`, `3/5`."""
    return operations.in_signs(in_digits(text))


def in_digits(text: str) -> str:
    """Returns a text with `2000000` for `2 million`."""
    return _MULTIPLE.sub(lambda m: f"{(Decimal(m[1]) * 10 ** numerals.MULTIPLES[m[2]]).normalize():f}", text)


def signed(text: str) -> str:
    """Returns a text with `-7` for "is minus 7", "negative 7", "is - 7" and a dash in its place."""
    return with_signs(_DASH.sub(r"\1-", text))


def with_signs(text: str) -> str:
    """Returns a text with `-7` for "is minus 7" and "negative 7"."""
    return _MINUS.sub(lambda m: f"{m[1] or ''}-", text)


def last_expression(line: str) -> str | None:
    """Returns the last expression with a number in a line of prose: of `9 - 2 = 7` the 7, of `10^2` all of it.

    Of plain numbers with only spaces or dashes between them it is the last one.
    """
    line = without_tags(without_exclamation(re.sub(r"\*\*|__|`", "", line[-SENTENCE:])))
    line = _OTHER_NUMBER.sub("", _THOUGHT_BY_OTHERS.sub("", in_values(signed(line))))
    line = _BECAUSE.sub(r"\1", line)
    if re.search(r"\d", without := _ASIDE.sub("", line)):
        line = without
    if called := _CALLED_WRONG_NUMBER.search(line):
        return f"not {called[1]}"
    if (
        (back := TAKEN_BACK.search(line))
        and (values := numbers_of(line[: back.start()]))
        and not numbers_of(line[back.end() :])
    ):
        return f"not {values[-1]}"
    if either := _EITHER.search(line):
        return f"{either['one'] or either['number']}, {either['other'] or either['next']}"
    if bound := _BOUND.search(line):
        return bound["bound"].lower()
    if _DENIED.search(line):
        return "not " + (numbers_of(line) or [""])[-1]
    answer, place, at = None, 0, (0, 0)
    line = _PER_UNIT.sub(lambda m: "" if units.is_name(m[1]) else m[0], line)
    for run in _RUN.finditer(line):
        if run.start() < place or not re.search(r"[\d²³∞]|\\(?:pi|sqrt|frac|infty)(?![a-z])|(?<![A-Za-z])sqrt", run[0]):
            continue
        text = re.split(r"(?<![<>!\\])=", run[0])
        last = next((side for side in reversed(text) if re.search(r"[\d²³∞]|\\[a-z]|(?<![a-z])pi(?![a-z])", side)), "")
        if len(text) > 1 and (difference := re.fullmatch(r"\s*(-?\d+\s?[-−]\s?\d+)[\s.]*", last)):  # x = 2 - 3
            answer = difference[1]
            continue
        if found := _of_run(last, line[run.end() : run.end() + 1]):
            whole = len(numbers_of(run[0])) == 1 and not re.match(r"\s*[,.;:]", run[0])  # "half, 5" is 5
            answer, at = found, (run.start() if whole else 0, run.end())
        if answer and (unit := _unit_with_a_power(line, run.end())):
            raised = re.sub(r"(?<=[A-Za-z])(?=[23])", "^", unit.strip())  # km2
            answer, place = rf"{answer}\text{{ {raised}}}", run.end() + len(unit)
    return answer and operations.acted(line[: at[0]], answer, line[at[1] :].lstrip() if at[1] else "")


def _unit_with_a_power(line: str, place: int) -> str:
    """Returns the unit behind a number at a place of a line, as `cm²` or `kg/m^3`; "" without one, or without a power in it."""
    place -= line[place - 1 : place] == " "
    unit = _UNIT.match(line, place) if re.search(r"(?:[\d)}π½¼¾]|\\pi)$", line[max(0, place - 3) : place]) else None
    known = unit and all(units.is_name(name) for name in unit.groups() if name)
    return unit[0] if known and re.search(r"[²³\d]", unit[0]) else ""


def _of_run(text: str, following: str) -> str | None:
    text = text.strip(" \t,;:*_=").rstrip(".").strip()
    text = re.sub(
        r"^([$\\]{0,2}-?[\d.,/]+\s?(?:\\?%)?)\s+\((?:[$\\]{0,2}[\d.,/]+\s?(?:\\?%)?\))?$", r"\1", text
    )  # 0.5 (50%)
    text = re.sub(r"^(\\?[$€£¥]\s?[\d.,]+)[!/]$", r"\1", text)  # an exclamation, or an amount per month
    text = re.sub(r"^[aAI]\s+(?=[-\d$\\])|\s+[aAI]$", "", text)
    text = re.sub(r"^(?:[)\]}!|:,\s]|\.(?!\d))+(?=.)", "", text)
    if _PLAIN_RUN.fullmatch(text):
        per_cent = re.search(r"%\s*$", text)
        text = re.sub(r"\\?[$€£¥]", "", text)
        if mixed := re.search(r"(?<![\d./])(\d+ \d+/\d+)$", text):
            return mixed[1]
        if decimal := re.fullmatch(r"\s*(\d+,\d{1,2}|0,\d+)\s*", text):
            return decimal[1]
        if spaced := re.fullmatch(r"\d{1,3}(?: \d{3})+", text.strip()):
            return spaced[0] if any(group[0] == "0" for group in spaced[0].split()[1:]) else spaced[0].split()[-1]
        found = numbers_of(text.rstrip("% \\"))
        return (found[-1] + ("%" if per_cent else "")) if found else None
    if following.isalpha() and re.search(r"[\d)]\s?$", text) is None:
        return text or None
    return _balanced(text.replace("$", "")) or None


def _balanced(text: str) -> str:
    """Removes brackets without a partner from the ends of an expression."""
    for opening, closing in ("()", "[]", "{}"):
        while text.count(closing) > text.count(opening) and text.endswith(closing):
            text = text[:-1].rstrip()
        while text.count(opening) > text.count(closing) and text.startswith(opening):
            text = text[1:].lstrip()
        if text.count(opening) > text.count(closing) and text.endswith(opening):
            text = text[:-1].rstrip()
    return text.strip(" ,;:")


def _only_number(text: str) -> str | None:
    """Returns the number in a text of words and one number, such as `18 dollars per day`, None for other text."""
    values = numbers_of(re.sub(r"[\^_]-?(?:\d+|\{[^{}]*\})", "", text))
    plain = WORD.search(text) and not re.search(r"[\\=<>*/+^()%:]|\d\s?-", text) and not _SAID.search(text)
    return values[0] if len(values) == 1 and plain and not operations.first_acted(text) else None


def numbers_of(text: str) -> list[str]:
    """Returns the numbers in a text, in order, without thousands separators and with LaTeX fractions as a/b."""
    return _NUMBER.findall(_plain(text))


def _plain(text: str) -> str:
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    # A whole number before a fraction makes it a mixed number, which a/b would misread.
    text = re.sub(r"(?<!\d)\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
