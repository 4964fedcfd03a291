"""Tells whether a text states the gold answer, with the readers of the verifiers.

A letter is stated where the choice verifier would read it, where a sentence singles it out as right, and where all others are
ruled out; a value in any spelling, but not as a number of a step or an exponent; a call where it is written out.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

from amrsd_jax.tasks import letters, numerals, tools, units
from amrsd_jax.tasks.brackets import pieces
from amrsd_jax.tasks.letters import LETTERS
from amrsd_jax.tasks.mathematics import number, value
from amrsd_jax.tasks.notation import notation
from amrsd_jax.tasks.sentences import in_digits, numbers_of, with_signs

ITEMS = 6  # values of a list that are looked for one by one, our choice
TAIL = 100_000  # characters at the end of a text that are searched, our choice


def states_answer(text: str, answer: str, question: str = "") -> bool:
    """Returns whether a text states an answer to a question: one letter as that of an option, anything else as a value."""
    if re.fullmatch(r"\s*[A-Za-z]\s*", answer):
        return states_letter(text, answer.strip().upper(), dict.fromkeys(LETTERS, ""))
    return states_value(text, answer, question)


# ---------------------------------------------------------------- letters

_LABEL = re.compile(
    r"(?<![A-Za-z0-9À-ɏ])(?:[(\[*]{1,2}\s?([A-Za-z])\s?[)\]*]{1,2}|(?i:option|choice|letter|answer)s?\s+([A-Z])\b|"
    r"(?<!(?i:vitamin) )(?<!(?i:point) )(?<!(?i:plan) )(?<!(?i:figure) )(?<!(?i:field) )"
    r"(?<!(?i:group) )(?<!(?i:set) )(?<!(?i:matrix) )(?<!(?i:event) )([B-HJ-Z])|"
    r"([AI])(?=\s*(?:,|/|and\b|or\b|nor\b|is\b|are\b)))(?![A-Za-z0-9À-ɏ'’])"
)
_RIGHT = re.compile(
    r"(?i:\b(?:correct|right(?![- ](?:hand|side|angle))|best|answer|key is|choos\w*|chos\w*|pick\w*|select|true|fits?|"
    r"satisf\w*|need|go for|reconsider|dismiss\w*|overlook\w*|rul\w+ out|reject\w*|eliminat\w*|discard\w*)\b)"
)
_TOWARDS = (  # "switch to C", "B should be C"
    r"(?i:should (?:be|have been)|switch\w* (?:from [A-Z] )?to|[A-Z] ?(?:->|→)|"
    r"(?:all|everything|none|nothing) (?:but|except|other than)|chang\w+ [^.!?]{0,30}to|replac\w+ [^.!?]{0,30}(?:with|by)|"
    r"points? to|chosen|not [A-Z],? but)\s+(?i:option\s+|choice\s+)?[(\[*]{0,2}"
)
_OVER_OTHERS = r"(?:rather than|instead of|it is(?![a-z ])|(?:fits|works|is) better)"
_NOT = re.compile(
    r"(?i:\b(?:not|nor|neither|never|wrong|incorrect|false|eliminat\w*|rul\w+ out|exclud\w*|cannot)\b|n['’]t\b)"
)


def states_letter(text: str, letter: str, options: Mapping[str, str]) -> bool:
    """Returns whether a text states a letter, or the text of its option, as the answer.

    Args:
      letter: of the right option.
      options: the text of each letter's option, "" where it is not known.
    """
    text = text[-TAIL:]
    if any(statement.letter == letter for statement in letters.statements(text, options)):
        return True
    for sentence in re.split(r"(?<=[.!?;])\s|\n", text):
        named = {next(filter(None, m.groups())).upper() for m in _LABEL.finditer(sentence)} & set(options)
        if named == {letter} and _RIGHT.search(sentence) and not _denies(sentence, letter):
            return True
        if not _denies(sentence, letter) and re.search(
            rf"{_TOWARDS}{letter}\b|(?<![A-Za-z0-9]){letter}[)\]*]{{0,2}} {_OVER_OTHERS}", sentence
        ):
            return True
        others = set(options) - {letter} if len(options) < len(LETTERS) else set(LETTERS[: len(named) + 1]) - {letter}
        if len(named) > 1 and named == others and _NOT.search(sentence):
            return True
    return False


def _denies(sentence: str, letter: str) -> bool:
    """Returns whether a sentence says of a letter that it is not the answer."""
    said = rf"(?<![A-Za-z0-9]){letter}[)\]*]{{0,2}}"
    wrong = r"(?:is|seems|looks)\s+(?:also\s+|clearly\s+)?(?:not|wrong|incorrect|false)|isn['’]t"
    return (
        re.search(rf"{said}\s+(?:{wrong})|\b(?:not|never)\s+(?:\w+\s+){{0,2}}[(\[*]{{0,2}}{said}", sentence) is not None
    )


# ---------------------------------------------------------------- values

_SIGNS = str.maketrans({"−": "-", "–": "-", "π": r"\pi", "√": r"\sqrt"})
# Numbers that name a place and not a value: "step 2", "equations (1) and (2)", "2. Then", "the 2nd", exponents and indices.
_PLACES = re.compile(
    r"\b(?:step|line|equation|eq\.?|case|part|problem|question|paragraph|section|sentence|row|column|item|attempt|figure|table|"
    r"theorem|lemma|rule|point|stage|phase|sub-?part|no\.|(?<!the )number|chapter|page|iteration|round|trial|method|approach|"
    r"bullet|example|exercise|hint)s?\s{0,3}#?\(?\d{1,3}\)?(?:\s{0,3}(?:,|and|or|to|-|&)\s{0,3}\(?\d{1,3}\)?){0,9}"
    r"(?![\d.]*\d)|^[ \t]{0,9}\(?\d{1,2}[.)][ \t]|(?<!\w)#\d{1,3}\b|\b\d+(?:st|nd|rd|th)\b|[\^_](?:\{-?\d+\}|-?\d+)",
    re.MULTILINE | re.IGNORECASE,
)
_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname|boxed)\s{0,3}(?=\{)|\\(?:left|right)(?![a-z])|\\[,;!: ]|[{}$]"
)
_MIXED = re.compile(r"(?<![\d./])(\d{1,9}) (\d{1,9})/(\d{1,9})(?![\d/]|\.\d)")
_PER_CENT = re.compile(
    r"(?<![\w.])(-?\d{1,9}(?:\.\d{1,9})?)\s?(?:\\?%|per ?cent\b)(?! (?:sure|certain|correct|right|confident|accurate))"
)
_WORD = rf"(?:{'|'.join(numerals.NUMBER_WORDS)})"
_SPOKEN = re.compile(
    rf"\b{_WORD}(?:[\s-]{{1,3}}(?:and )?{_WORD}){{0,9}}\b(?=\s?(?:[.,;:!?)]|$))", re.IGNORECASE | re.MULTILINE
)
_ZERO_OR_ONE = re.compile(
    r"\b(?:answer|result|solution)\s(?:\w+\s){0,2}(?:is|be|was|equals)\s(zero|one)(?=\s?(?:[.,;:!?)]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_PRODUCT = re.compile(r"(?<=[\d)])\s?(?:\*|×|\\cdot|\\times)\s?(?=\\?(?:pi|sqrt)(?![a-z]))")  # 2*sqrt(3) is a value
_NAMED = re.compile(r"\s*[A-Za-z](?:_\w)?\s*=\s*(?![A-Za-z]\s*$)([^=]+)")
_NAMES = re.compile(r"(?<![\\A-Za-z])(pi|sqrt)(?![A-Za-z])")
_EXPRESSION = re.compile(r"[^\s=,;:$]{1,300}")
_FORM = re.compile(
    r"\\|\^|/|\de\d"
)  # fractions, roots and powers; a sum is a calculation, which may have the answer as its result
_CALLED = re.compile(r"[A-Za-z]\(")  # sqrt(2)
_OPERATION = re.compile(r"[+*×]|\\(?:cdot|times)|(?<!^)-|\d/\d+/")
# What stands before a number that is a result, and behind one.
_RESULT = re.compile(
    r"(?:[=≈→⇒:]|\\boxed|\b(?:is|are|be|was|equals?|equal to|gives?|yields?|gets?|makes?|becomes?|obtains?|answer|result|total)\b"
    r"(?: (?:just|only|exactly|then|indeed|of|to))?)[\s$(*\\[{]{0,6}-?$",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"[\s$)*\\\]}]{0,6}(?:is|was|as) (?:the|your|a) (?:\w+ )?(?:answer|result|solution)\b", re.IGNORECASE
)


def states_value(text: str, answer: str, question: str = "") -> bool:
    """Returns whether a text states a value as a word, a number or an expression of its own.

    Numbers, fractions, roots and powers match every spelling of their value (1,234 and 1234, 1/2 and 0.5, 50% and 0.5, 10^6
    and 1000000), without their unit or name. A list is also stated where all its values are, up to ITEMS of them. Anything
    else matches regardless of case, spacing, braces and LaTeX's words for text. A number that the question has as well is
    stated only as a result: "add 6 and 2" does not state 6. So is one in words, at the end of a clause: "there are two terms"
    does not state 2.
    """
    text, question = _in_figures(text[-TAIL:]), _in_figures(question)
    bare = _value_of(answer)
    if any(_states(text, one, question) for one in dict.fromkeys((answer, bare))):
        return True
    items = list(dict.fromkeys(pieces(bare, (",",))))
    if not 1 < len(items) <= ITEMS or number(bare) is not None or any(number(one) is None for one in items):
        return False
    return all(_states(text, one, question) for one in items)


def _in_figures(text: str) -> str:
    """Returns a text with numbers in one form: `-7` for "is minus 7", `3/2` for `1 1/2`, `1000000` for `1 million`."""
    text = _NAMES.sub(r"\\\1", text.translate(_SIGNS))
    text = in_digits(_PRODUCT.sub("", with_signs(text)))
    return _MIXED.sub(lambda m: f"{int(m[1]) * int(m[3]) + int(m[2])}/{m[3]}", text)


def _states(text: str, answer: str, question: str) -> bool:
    """Returns whether a text, as `_in_figures` writes it, states one value."""
    answer = "".join(answer.translate(_SIGNS).split())
    if not answer:
        return False
    exact = number(answer)
    near = value(answer) if exact is None else float(exact)
    if exact is not None:
        plain = _PLACES.sub(" ", text)
        if _states_share(plain, answer, exact, question) or _states_in_words(plain, exact):
            return True
        named = exact in map(number, numbers_of(plain))
        if exact in map(number, numbers_of(question)):
            return named and _states_result(plain, exact)
        if named:
            return True
    if near is not None:
        for candidate in _EXPRESSION.finditer(text):
            expression = candidate[0].strip(".!?\"'*`")
            if expression.count("(") != expression.count(")") or not _CALLED.search(expression):
                expression = expression.strip(".!?()[]\"'*`")
            if _FORM.search(expression + answer) and not _OPERATION.search(expression):
                found = value(expression)
                if found is not None and abs(found - near) <= 1e-9 * abs(near):
                    return True
    if exact is not None:
        return False
    plain = _WRAPPER.sub("", answer)
    stated = r"(?<!\w)" + r"\s*".join(map(re.escape, plain)) + r"(?!\w)"
    return bool(plain) and re.search(stated, _WRAPPER.sub("", text), flags=re.IGNORECASE) is not None


def _states_share(text: str, answer: str, exact: Fraction, question: str) -> bool:
    """Returns whether a text has a share in its other form: 50% for 0.5, or 0.35 for 35%, and the question does not have it."""

    def shares(text: str) -> set[Fraction]:
        return {Fraction(found) / 100 for found in _PER_CENT.findall(text)}

    def decimals(text: str) -> set[Fraction | None]:
        return {number(found) for found in numbers_of(text) if "." in found}

    if answer.endswith("%"):
        return exact / 100 in decimals(text) - decimals(question)
    return exact.denominator > 1 and exact in shares(text) - shares(question)


def _states_in_words(text: str, exact: Fraction) -> bool:
    """Returns whether a text ends a clause with a result in words: "it is twelve."

    Zero and one are said of much else, as in "equal to zero", so these must be called the answer.
    """
    if exact in (0, 1):
        return any(numerals.spoken(found) == str(exact) for found in _ZERO_OR_ONE.findall(text))
    spoken = _SPOKEN.sub(lambda m: numerals.spoken(m[0]) or m[0], text)
    return spoken != text and _states_result(spoken, exact) and not _states_result(text, exact)


def _value_of(answer: str) -> str:
    """Returns an answer without its unit, `5` of `5\\text{ cm}`, and without its name, `5` of `x=5`."""
    if len(answer) > 200:
        return answer
    if named := _NAMED.fullmatch(answer):
        answer = named[1]
    value, unit = units.split(notation(answer))
    return value if unit.powers and number(value) is not None else answer


def _states_result(text: str, value: Fraction) -> bool:
    """Returns whether a text has a number as a result, or nothing else."""
    found = [
        match
        for match in re.finditer(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", text)
        if number(match[0].rstrip(",").replace(",", "")) == value
    ]
    alone = not re.search(r"[^\W\d_]", text)
    return any(
        alone or _RESULT.search(text[max(0, match.start() - 40) : match.start()]) or _ANSWER.match(text, match.end())
        for match in found
    )


# ---------------------------------------------------------------- calls


def states_calls(text: str, gold: str) -> bool:
    """Returns whether a text writes out a gold call: in a form of replies, or its name and every argument beside its value.

    A gold answer that is no list of calls is looked for as a value.
    """
    text = text[-TAIL:]
    try:
        expected = tools.gold_calls(gold)
    except ValueError:
        return states_value(text, gold)
    written = [*tools.calls(text), *tools.calls(text, form="any")]
    return any(
        any(call.name == said.name and tools.same_arguments(call, said) for said in written)
        or (
            call.arguments
            and re.search(rf"(?<!\w){re.escape(call.name)}(?!\w)", text)
            and _all_beside(text, call.arguments)
        )
        for call in expected
    )


def _all_beside(text: str, arguments: Mapping[str, object]) -> bool:
    """Returns whether each argument's name is followed by its value."""
    joint = r"[\"'`*]{0,3}\s{0,3}(?:is|to|as|of|=|:|be|should be|must be|set to)?\s{0,3}[\"'`*(]{0,3}"
    return all(
        re.search(rf"(?<!\w){re.escape(name)}{joint}{re.escape(str(given).strip())}(?!\w)", text, re.IGNORECASE)
        for name, given in arguments.items()
        if not isinstance(given, dict | list)
    ) and not any(isinstance(given, dict | list) for given in arguments.values())
