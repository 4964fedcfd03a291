"""Prints lines and progress bars to stderr, on process 0 only."""

import sys

from tqdm import tqdm

from amrsd_jax.processes import is_first, only_first


@only_first
def note(text: str) -> None:
    """Prints a line about what a run does next, coloured on a terminal."""
    print(f"\033[33m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def bar(*args, **kwargs) -> tqdm:
    """Returns a progress bar with tqdm's arguments, shown where stderr is a terminal."""
    return tqdm(*args, disable=None if is_first() else True, **kwargs)


@only_first
def say(text: str) -> None:
    """Prints a line above the progress bar."""
    tqdm.write(text, file=sys.stderr)
