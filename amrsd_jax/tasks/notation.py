"""Rewrites an answer in one notation: the same answer in LaTeX, plain text or Unicode becomes the same text.

The notation is LaTeX with few commands: `*` for products, `\\le`, `\\ge`, `\\ne` for relations, `\\frac{a}{b}`, `\\text{...}` for
words. Brackets have no size, and spaces stand only where they keep two numbers or two words apart.
"""

import re

from amrsd_jax.tasks import numerals

_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "π": r"\pi ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "°": r"^\circ ", "∅": r"\emptyset ", "½": r"\frac{1}{2}", "ℝ": r"\mathbb{R}",
        "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
        "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "√": r"\sqrt ", "∠": r"\angle ",
        "，": ", ", "；": ";", "：": ":", "（": "(", "）": ")", "％": "%", "＝": "=", "＋": "+", "－": "-", "。": ".", "、": ", ",
        "＜": "<", "＞": ">", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "′": "'", "’": "'", "…": "...",
        "\u00a0": "~", "\u2009": "~", "\u202f": "~", "\u2002": " ", "\u2003": " ", "\u3000": " ", "\u200b": "", "\ufeff": "",
    }
    | dict(zip("０１２３４５６７８９", "0123456789", strict=True))
    | dict.fromkeys("‐‑‒﹣", "-")
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _multiple(match: re.Match) -> str:
    """Returns `5 million` as a product."""
    return f"*10^{{{numerals.MULTIPLES[match[2]]}}}{match[1] or ''}"


_UNITS = "mgsNJWVKLh"  # letters that are units behind a number without a space, as in `3\text{m}`
_UNIT_LETTERS = _UNITS + "CAlTFH"


def _upright(match: re.Match) -> str:
    """Returns a letter that is set upright, `x` of `\\text{x}`, as a variable."""
    return _variable(match, match[1] + match[2][:-1])


def _variable(match: re.Match, letter: str) -> str:
    """Returns a variable, which must not run into a command in front of it."""
    return " " + letter if match.string[: match.start()][-1:].isalpha() else letter


def _units(match: re.Match) -> str:
    """Puts a space into upright letters behind a number, `\\text{ m}`, by which later rewrites know them as a unit."""
    known = _UNIT_LETTERS if re.match(r"[~\s]|\\[,;: ]", match[0]) else _UNITS
    return re.sub(r"\\text\{\s*([A-Za-z])\s*\}", lambda m: rf"\text{{ {m[1]}}}" if m[1] in known else m[0], match[0])


def _powers_outside(match: re.Match) -> str:
    r"""Returns `\text{m s^{-1}}` as `\text{m s}^{-1}`."""
    words = re.split(r"(\^\{-?\d\}|\^-?\d)", match[1])
    return "".join(word if k % 2 or not word else rf"\text{{{word}}}" for k, word in enumerate(words))


_REWRITES = [
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\\\\(?=(?:[dtc]?frac|sqrt|le|ge|in|begin|left|right|pi|cdot|times|text)(?![a-z]))", r"\\"),  # doubled by JSON
        (r"\\\\(?:\[[^\[\]]*\])?", r"\\cr "),  # the end of a row
        (r"\\(?:text|math)?color(?:box)?\s*\{[^{}]*\}|\\color\s+[a-z]+(?![a-z])", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|boldsymbol|bm|bf|rm|it|underline|mathop|boxed|fbox|ensuremath)(?![A-Za-z])", ""),
        (r"\\(?:mathbf|textbf)\s?\{\s*([A-Za-z])\s*\}", lambda m: _variable(m, m[1])),  # bold, so no unit
        (r"\\(?:text(?:bf|rm|it|normal|sf|tt)?|math(?:rm|bf|it|sf|tt|normal)|[mh]box|operatorname\*?)(?![A-Za-z])\s*", r"\\text"),
        (r"\\text\{([^{}^]*\^(?:[^{}]|\{-?\d\})*)\}", _powers_outside),
        (r"(?<=[\d)}])([~\s\\,;:]{0,9})"
         r"\\frac\{\\text\{\s*([A-Za-z]{1,4})\s*\}\}\{\\text\{\s*([A-Za-z]{1,4})\s*\}(\^\{?\d\}?)?\}",
         r"\1\\text{ \2}/\\text{ \3}\4"),
        (r"(?<=\d)(?:[~\s]|\\[,;: ]){1,5}\\mu\s?\\text\{\s*([A-Za-z])\s*\}", r"\\text{ µ\1}"),
        (r"(?:(?<=\d)|(?<=\d\})|(?<=\d\}\})|(?<=\))(?=[~\s]|\\[,;: ]))"
         r"(?:[~\s]|\\[,;: ]){0,5}\\text\{\s*[A-Za-z]{1,3}\s*\}(?:\^\{?-?\d\}?)?"
         r"(?:(?:[~\s]|\\[,;: ]){0,5}(?:(?:\\cdot|\*|/)\s?)?\\text\{\s*[A-Za-z]{1,3}\s*\}(?:\^\{?-?\d\}?)?){0,5}",
         _units),
        (r"\\text\{([A-Za-z])(\}(?=[_^({]|$)|\^\{[^{}]*\}\})", _upright),
        (r"\\(?:dfrac|tfrac|cfrac|nicefrac|sfrac)(?![A-Za-z])", r"\\frac"),
        (r"\\\$|[$€£¥₹]", "$"),
        (r"\\[()\[\]]", ""),
        (r"\\!|\\(?:checkmark|blacksquare)(?![A-Za-z])|`", ""),
        (r"\{,\}", ","),
        (r"\\(?:[,;:]|thinspace)|~", "~"),
        (r"\\(?:q?quad|enspace|hspace\{[^{}]*\})(?![A-Za-z]{2}|[A-Za-z]$)|\\(?=\s)|\\$", " "),
        (r"\\(?:l?dots[cbm]?|cdots)(?![A-Za-z])", "..."),
        (r"\\nleq(?:slant|q)?(?![A-Za-z])", ">"),
        (r"\\ngeq(?:slant|q)?(?![A-Za-z])", "<"),
        (r"\\leq?(?:slant|q)?(?![A-Za-z])|<=|=<", r"\\le "),
        (r"\\(?:geq?(?:slant|q)?)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq?(?![A-Za-z])|!=|\\not\s*=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])|\*\*(?=\s*[\d(A-Za-z{])|\*", lambda m: "^" if m[0] == "**" else "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"(\.\d{0,9}?)(\d{1,9}?)\2{2,99}\s?\.\.\.|(\.\d{0,99})\((\d{1,99})\)", r"\1\3\\overline{\2\4}"),
        (r"\\dot\{(\d)\}(\d*)\\dot\{(\d)\}", r"\\overline{\1\2\3}"),
        (r"(?<=[.\d])\\dot\{(\d)\}", r"\\overline{\1}"),
        (r"(?<=\d)\s*(\\text\{)?\s*(" + "|".join(numerals.MULTIPLES) + r")(?![A-Za-z])", _multiple),
        (r"^(\s*\$\s?\d[\d,]{0,15}(?:\.\d{1,9})?)\s?[Mm](?=[\s.]*$)", r"\1*10^{6}"),  # $5M, which is no formula
        (r"(?:\\text\{\s*(?:minus|negative)\s*\}|(?<![A-Za-z])(?:minus|negative)(?![A-Za-z]))[\s~]*(?=\d|\\frac)", "-"),
        (r"\\text\{\s*\}", "~"),
        (r"\\text\{([^{}]*[^{}\s])\s+(and|or)\s*\}", r"\\text{\1} \\text{ \2 }"),
        (r"(?<=\d)\s*\\text\{([^{}]*[^{}\s,]),\s*\}(?=\s*\d)", r"\\text{\1}, "),
        (r"(?<=\d)\s*(?:\\text\{)?\s*(hours?|hrs?|h|minutes?|mins?|feet|foot|ft|pounds?|lbs?|dollars?|days?|weeks?|years?)"
         r"\s*\}?,?(?: and)?\s+"
         r"(?=\d+\s?(?:\\text\{)?\s?(?:hours?|h\b|min|sec|s\b|inch|in\b|ounce|oz|cents|days?|weeks?|months?))",
         r"\\text{ \1} "),
        (r"\\(?:varnothing|emptyset)(?![A-Za-z])|\\text\{\s*(?:the )?empty set\s*\}|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:[lr]?vert|mid)(?![A-Za-z])", "|"),
        (r"\\(?:approxeq|simeq|cong)(?![A-Za-z])", r"\\approx "),
        (r"\\(?:colon|ratio)(?![A-Za-z])", ":"),
        (r"\\degree(?![A-Za-z])|\^\{\\circ\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ "),
        (r"\^\\circ [\s~]*\\text\{\s*([CFK])\s*\}", r"^\\circ \1"),
        (r"\\(?:implies|Rightarrow|iff|Leftrightarrow|therefore)(?![A-Za-z])", ","),
        (r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<![\\A-Za-z])(sqrt|cbrt|pi|Pi|infty|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp"
         r"|theta|alpha|beta|gamma|lambda)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])(sin|cos|tan|ln|log)x(?![A-Za-z])", r"\\\1 x"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\cbrt\s*[({]([^(){}]*)[)}]", r"\\sqrt[3]{\1}"),
        (r"\\sqrt\s+(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\\sqrt(\d)", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\s*(?<![A-Za-z])(?:per\s?cent|percentage|pct)(?![A-Za-z])|\\?%", "%"),
        (r"\\text\{\s*%\s*\}", "%"),
        (r"\^\(([^()]*)\)", r"^{\1}"),
        (r"\^\s*(-?\d+)", r"^{\1}"),  # 2^10 is 1024, as whoever writes it means
        (r"(?<=\d)[eE]([+-]?\d+)\s+([kcmnMG]?(?:[mgsNJWVKACFTL]|Hz|Pa|eV|mol|cal)(?:/(?:[sh]|kg|mol|K))?)[\s.]*$",
         r"*10^{\1}\\text{ \2}"),
        (r"(?<=\d)\s*[eE]([+-]?\d+)(?!\w|\.\d)", r"*10^{\1}"),
        (r"(?<=\d)\s?x\s?(?=10\^)", "*"),
    )
]  # fmt: skip
_TYPE = re.compile(
    r"\s*\\(?:text(?:bf|rm|it|normal|sf|tt)?|math(?:rm|bf|it|sf|tt|normal)|[mh]box)\s*\{(.*)\}[\s.]*", re.DOTALL
)
_WORDS_IN_TYPE = re.compile(r"[A-Za-z]{2}|^[\s~]*-?[\d.,/]+[\s~]*[A-Za-z][\s~.]*$")  # a number with a unit among them
_COUNT = re.compile(r"(?:\\text\{)?\s*+(\d*)[\s~]*+(?:\\text\{)?\s*+([A-Za-z][A-Za-z\s-]*+)\}?[\s.]*+")
_WORDS_AROUND = re.compile(r"\\text\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_LATEX_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:(?:,\s*\\!\s*|\{,\})\d{3})+(?!\d)")
_EUROPEAN = re.compile(
    r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+,\d+(?![\d.,])|(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.,])"
)
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?:~\d{3})+(?!\d)|(?<![\d.,])\d{1,3}(?: \d{3})* 0\d\d(?: \d{3})*(?!\d)")
_MIXED = re.compile(r"(?<![\d.])(\d+)[ ~]+(?:(\d+)/(\d+)|\\frac\{(\d+)\}\{(\d+)\})(?![\d.])")
_BRACKETS = re.compile(r"\\?[(\[{]|\\?[)\]}]")


def notation(text: str) -> str:
    """Returns an answer in the one notation."""
    text = re.sub(r"(?<!~)~=(?!~)", r"\\approx ", text)  # before other spaces become ~
    text = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    text = re.sub("[₀-₉]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text).translate(_SIGNS)
    text = re.sub(r"^\s*\*\*(.*?)\*\*\s*\.?\s*$", r"\1", text, flags=re.DOTALL)  # bold in Markdown
    text = _plain_formula(text)
    text = _LATEX_THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)  # also within brackets
    for pattern, written in _REWRITES:
        text = pattern.sub(written, text)
    if (count := _COUNT.fullmatch(text.strip())) and (number := numerals.spoken(" ".join(count.groups()))):
        return number
    text = _WORDS_AROUND.sub(_number_in_words, text)
    text = _SPACED.sub(lambda m: re.sub("[~ ]", "", m[0]), text)
    text = _outside_brackets(_EUROPEAN, lambda m: m[0].replace(".", "").replace(",", "."), text)
    text = _outside_brackets(_THOUSANDS, lambda m: m[0].replace(",", ""), text)
    text = _MIXED.sub(lambda m: rf"{m[1]}\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}}", text)
    return _spaces(text).strip()


def _plain_formula(text: str) -> str:
    r"""Returns the formula in a command for type, `\frac12` of `\mathbf{\frac12}`; any other text as it is."""
    match = _TYPE.fullmatch(re.sub(r"\\[,;: ]", "~", text))
    if not match or not re.search(r"[\d\\$]", match[1]) or _WORDS_IN_TYPE.search(re.sub(r"\\[A-Za-z]+", "", match[1])):
        return text
    depth = 0
    for brace in re.finditer(r"(?<!\\)[{}]", match[1]):
        depth += 1 if brace[0] == "{" else -1
        if depth < 0:  # the first brace closes before the end
            return text
    return match[1]


def _number_in_words(match: re.Match) -> str:
    """Returns the content of `\\text{10 cm}`, whose number belongs to the formula, or the match itself."""
    if number := re.fullmatch(
        r"\s*(?:(?:the |final |answer |is )*(?:answer|result|value|is)(?:\s?[:=]|\s))?\s*(-?[\d.,/]+)\s*(.*)",
        match[1],
        re.DOTALL | re.IGNORECASE,
    ):
        return number[1] + (rf"\text{{ {number[2]}}}" if number[2].strip() else "")
    return match[0]


def _outside_brackets(pattern: re.Pattern, written, text: str) -> str:
    """Replaces a pattern where no bracket is open, since a comma inside one separates; braces of arguments are no brackets."""
    pieces, depth, place, start = [], 0, 0, 0
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in "{}":
            continue
        opens = bracket[0][-1] in "([{"
        if depth == 0 and not opens:  # it closes nothing, as in "1) 5, 2) 6"
            continue
        if depth == 0:
            pieces.append(pattern.sub(written, text[start : bracket.start()]))
            place = bracket.start()
        depth += 1 if opens else -1
        if depth == 0:
            pieces.append(text[place : bracket.end()])
            start = bracket.end()
    rest = text[place:] if depth else pattern.sub(written, text[start:])
    return "".join(pieces) + rest


def _spaces(text: str) -> str:
    """Removes spaces, but those inside words, between two numbers, words or letters, and behind a command before a letter."""
    text = re.sub(r"[~\s]+", " ", text)
    pieces = re.split(r"(\\text\{[^{}]*\})", text)
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"(?<![A-Za-z0-9.,]) | (?![A-Za-z0-9.])", "", pieces[i])
        pieces[i] = re.sub(
            r"(?<=[A-Za-z]) (?=\d)|(?<=\d) (?=[A-Za-z](?![A-Za-z]))", _between_word_and_number, pieces[i]
        )
    return "".join(pieces)


def _between_word_and_number(match: re.Match) -> str:
    before = re.search(r"\\?[A-Za-z]+$", match.string[: match.start()][-40:])
    return "" if before is not None and before[0].startswith("\\") else match[0]


def squeezed(text: str) -> str:
    """Returns a text without the spaces that keep no two numbers apart, for the comparison of texts."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text.strip())
