"""Ends responses at stop strings, which the host looks for in the text of the tokens that it reads back."""

import dataclasses
from collections.abc import Sequence

from amrsd_jax.policy.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class StopStrings:
    """Strings that end a response after the token that completes one of them; the response keeps them.

    Attributes:
      strings: the strings; special tokens count as spelled.
      tokenizer: decodes the tokens.
    """

    strings: tuple[str, ...]
    tokenizer: Tokenizer

    @property
    def _window(self) -> int:
        """Most tokens that hold a string: a token has at least one byte of the text."""
        return max(len(string.encode("utf-8", "surrogatepass")) for string in self.strings)

    def _in(self, tokens: Sequence[int]) -> bool:
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return any(string in text for string in self.strings)

    def end(self, tokens: Sequence[int], start: int) -> int | None:
        """Returns the number of tokens up to the first one, not before `start`, that completes a string; None if none does.

        Only the tokens in the window before it decide, so that a response does not depend on when the host reads it.
        """
        if not self._in(tokens[max(0, start + 1 - self._window) :]):
            return None
        ends = range(start + 1, len(tokens) + 1)
        return next((end for end in ends if self._in(tokens[max(0, end - self._window) : end])), None)
