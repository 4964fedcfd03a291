"""Reads what emphasis says in prose: a number in bold type, and an exclamation mark, which is no factorial.

Lines are of bounded length.
"""

import re

_EXCLAIMED = re.compile(r"(?<=[\d%}])(?P<bold>\**) ?!{1,3}(?=[*_\s]*(?:$|[^\w\s\x00-\x7f])|\**\s+[A-Z][a-z ])")
_FACTORIALS = re.compile(r"(?<![A-Za-z])[\w)]!|[-+*/^·×]\s?\d+!|(?i:factorial|permut|arrang|\border|\bways?\b)")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_OF_BOLD_LABEL = re.compile(
    r":\s*$|^\W*(?:Step|Part|Case|Note|Example|Question)\b|^\W*\d+(?:[.:)]\s|st\b|nd\b|rd\b|th\b)"
)
_BOLD_IS_GIVEN = re.compile(  # "In **3** days ...", "Each of the **3** ..."
    r"(?:^|[.!?,;:]\s)\W{0,9}(?:In|After|If|Since|For|With|Of|When|At|On|By|From|Given|Because|As|While|Before)\b[^.,;]*$"
    r"|\b(?:the|these|those|this|that|all|both|each|every|first|last|next|other|of)\s*$",
    re.IGNORECASE,
)
_STATES_MORE = re.compile(  # behind a bold number: another value follows
    r"[=+*/<>×÷≈]|\b(?:is|are|was|were|equals?|gives?|makes?|so|thus|then|hence|therefore|total|leav\w+|left|remain\w*|means?|or|but|and)\b",
    re.IGNORECASE,
)
_NEW_CLAUSE = re.compile(r"[,;:(–—]|\.\s")


def only_bold(line: str) -> str | None:
    """Returns the bold part of a line, where it is the only one with a number and states what the line says of it.

    Of "She has **20** apples in 3 bags." that is the 20. A label, a number that is given ("In **3** days she makes 20 dollars.")
    and one that another value follows ("**5** + 3 = 8") state nothing.
    """
    bold = [part for part in _BOLD.finditer(line) if re.search(r"\d", part[1])]
    if len(bold) != 1 or _OF_BOLD_LABEL.search(bold[0][1]):
        return None
    before, behind = line[: bold[0].start()], line[bold[0].end() :]
    if re.match(r"\W*\d", bold[0][1]) and re.search(r"(?:^|[.!?]\s)\W{0,9}$", before):
        return None  # **2** bags weigh 20 kg
    others = re.match(r".*\d", behind, re.DOTALL)  # up to the last number
    if not others or _BOLD_IS_GIVEN.search(before) or _STATES_MORE.search(behind) or _NEW_CLAUSE.search(others[0]):
        return None
    return bold[0][1]


def without_exclamation(text: str) -> str:
    """Returns a sentence of prose without the exclamation mark behind its number, unless the sentence has factorials.

    `5!.` has one, since nobody ends a sentence with both signs.
    """
    calm = _EXCLAIMED.sub(r"\g<bold>", text)
    return text if _FACTORIALS.search(calm) or re.search(r"[-+*/^·×(]\s?\d+ ?!", text.replace("**", "")) else calm
