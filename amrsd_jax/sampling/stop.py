"""Ends responses at stop strings, which the host looks for in the text of the tokens that it reads back."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Integer


@dataclasses.dataclass(frozen=True)
class StopStrings:
    """Strings that end a response after the token that completes one of them; the response keeps them.

    Attributes:
      strings: the strings.
      decode: returns the text of tokens, special ones as they are spelled.
    """

    strings: tuple[str, ...]
    decode: Callable[[Integer[np.ndarray, " n"]], str]

    @property
    def _window(self) -> int:
        """Most tokens that hold a string: a token has at least one byte of the text."""
        return max(len(string.encode("utf-8", "surrogatepass")) for string in self.strings)

    def _in(self, tokens: Integer[np.ndarray, " n"]) -> bool:
        text = self.decode(tokens)
        return any(string in text for string in self.strings)

    def end(self, tokens: Integer[np.ndarray, " n"], start: int) -> int | None:
        """Returns the number of tokens up to the first one, not before `start`, that completes a string; None if none does.

        Only the tokens in the window before it decide, so that a response does not depend on when the host reads it.
        """
        if not self._in(tokens[max(0, start + 1 - self._window) :]):
            return None
        ends = range(start + 1, len(tokens) + 1)
        return next((end for end in ends if self._in(tokens[max(0, end - self._window) : end])), None)
