"""Helps to write error messages: valid names near a wrong one, and what another error says."""

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns the end of an error message about a wrong name: the nearest valid choice, and all choices."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(choices)}"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text that is not empty, or its kind."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
