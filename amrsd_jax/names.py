"""Suggests valid names in error messages about wrong ones."""

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns the end of an error message about a wrong name: the nearest valid choice, and all choices."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(choices)}"
