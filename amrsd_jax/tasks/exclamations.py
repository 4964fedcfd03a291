"""Tells an exclamation mark in prose from a factorial. Lines are of bounded length."""

import re

_EXCLAIMED = re.compile(r"(?<=[\d%}])(?P<bold>\**) ?!{1,3}(?=[*_\s]*(?:$|[^\w\s\x00-\x7f])|\**\s+[A-Z][a-z ])")
_FACTORIALS = re.compile(r"(?<![A-Za-z])[\w)]!|[-+*/^·×]\s?\d+!|(?i:factorial|permut|arrang|\border|\bways?\b)")


def without_exclamation(text: str) -> str:
    """Returns a sentence of prose without the exclamation mark behind its number, unless the sentence has factorials.

    `5!.` has one, since nobody ends a sentence with both signs.
    """
    calm = _EXCLAIMED.sub(r"\g<bold>", text)
    return text if _FACTORIALS.search(calm) or re.search(r"[-+*/^·×(]\s?\d+ ?!", text.replace("**", "")) else calm
