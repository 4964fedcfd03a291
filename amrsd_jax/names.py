"""Help with wrong names: every choice by name in the package answers a wrong one with the nearest right one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error message about a wrong name: the nearest valid choice, and all of them."""
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(choices)}"
