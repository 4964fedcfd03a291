"""Turns formulas into MathML, which browsers draw without a script, and lets long names in tables break."""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_DISPLAY = {"span": "inline", "div": "block"}


def on_page_content(content, **_):
    content = _FORMULA.sub(_mathml, content)
    return re.sub(r"<td.*?</td>", lambda cell: re.sub(r"<code>[^<]*", _breakable, cell[0]), content, flags=re.DOTALL)


def _mathml(formula: re.Match) -> str:
    texts = re.split(r"\$\$\s*\$\$", html.unescape(formula[2]))  # neighbours are one formula to the Markdown parser
    return "".join(convert(text, display=_DISPLAY[formula[1]]) for text in texts)


def _breakable(code: re.Match) -> str:
    return re.sub(r"(?<=\w)([._=/])(?=\w)", r"\1<wbr>", code[0])
