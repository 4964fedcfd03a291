"""Prints lines and progress to stderr, on process 0 only. Progress is a bar on a terminal, and elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

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


def track(items: Iterable[Any], name: str, total: int | None = None) -> Iterator[Any]:
    """Yields the items, and shows how many of them are done: a bar on a terminal, else a line now and then.

    Args:
      name: of the work, for example "warm-up".
      total: number of items, where they have no length.
    """
    total = len(items) if total is None else total
    if sys.stderr.isatty() or not is_first():
        yield from bar(items, name, total, leave=False)
        return
    pace, reported, last = Pace(total), 0, time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        since = time.monotonic() - last
        if done < total and (since >= 30 or (since >= 5 and 10 * (done - reported) >= total)):
            reported, last = done, time.monotonic()
            left = pace.left(done)
            say(f"{name}: {done} of {total}" + (f", {left} left" if left else ""))


class Pace:
    """Estimates the time that is left from what was done since the first call, before which programs were compiled.

    Args:
      total: number of parts of the work.
    """

    def __init__(self, total: int):
        self._total, self._first = total, None

    def left(self, done: int) -> str | None:
        """Returns the time that is left as [hours:]minutes:seconds, now that `done` parts are done; None at the first call."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
            return None
        before, began = self._first
        return tqdm.format_interval((now - began) / (done - before) * (self._total - done))
