"""Reads the program in a reply, in time linear in its length."""

import re
from collections.abc import Collection

from amrsd_jax.tasks.thoughts import after_thoughts

LONGEST = 100_000  # characters of a reply that are searched, and of a program, our choice

_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)  # indentation, fence, language
_CODE = re.compile(r"^(?:def|class|import|from|async def|@|if|for|while|print|[A-Za-z_]\w* *=|[ \t]+\S)", re.MULTILINE)
_PYTHON = ("python", "python3", "py")


_REST = re.compile(
    r"(?:[ \t]*\n)*[ \t]+\S|(?:.*\n)*?[ \t]*(?:return|yield)\b"
)  # of a function whose beginning the prompt shows


def program(reply: str, names: Collection[str] = (), rest: bool = False) -> tuple[str | None, bool]:
    """Returns the program of a reply, None if there is none, and whether it stands in a closed block between fences.

    Of several blocks it is the last one that is marked as Python and defines one of the names, then the last that defines one,
    then the last that is marked as Python, then the last: a block that only calls the function is no program. Else it is what
    follows an only fence, as in a reply that was cut off; without a fence it is the whole reply, where that has a line that could
    be code. A block in an item of a list loses the indentation of its fence.

    Args:
      reply: the whole reply.
      names: of what the tests use.
      rest: whether a last block that continues a function, `return x`, is the program, too.
    """
    reply = after_thoughts(reply)[-LONGEST:].replace("\r\n", "\n")
    blocks, opened = [], None
    for fence in _FENCE.finditer(reply):
        indentation, marks, language = fence.groups()
        if opened is None:
            if len(indentation) <= 3 or language.lower() in _PYTHON:
                opened = fence
        elif len(indentation) > len(opened[1]) + 3:
            continue  # of a text in the program
        elif language:
            opened = fence
        elif marks.startswith(opened[2]):
            blocks.append((opened[3].lower(), _inside(opened, reply[opened.end() + 1 : fence.start()])))
            opened = None
    blocks = [(language, text) for language, text in blocks if text.strip()]
    if blocks:
        return _last(blocks, names, rest), True
    if opened is not None:
        return _inside(opened, reply[opened.end() + 1 :]) if reply[opened.end() :].strip() else None, False
    return (reply, False) if _CODE.search(reply) else (None, False)


def _last(blocks: list[tuple[str, str]], names: Collection[str], rest: bool) -> str:
    """Returns the program among blocks, pairs of a language and a text, see `program`."""
    marked = [text for language, text in reversed(blocks) if language in _PYTHON]
    last = [*marked, blocks[-1][1]][0]
    if not names or defines(last, names) or (rest and _REST.match(last)):
        return last
    return next((text for text in (*marked, *(text for _, text in reversed(blocks))) if defines(text, names)), last)


def defines(text: str, names: Collection[str]) -> bool:
    """Returns whether a program defines one of some functions or classes, or gives one of the names a value."""
    either = "|".join(map(re.escape, names))
    return bool(
        re.search(
            rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(?:{either})\b|^(?:{either})[ \t]*(?::[^=\n]*)?=(?!=)",
            text,
            re.MULTILINE,
        )
    )


def _inside(opened: re.Match[str], text: str) -> str:
    """Returns what an opened fence is followed by, without the indentation of the fence."""
    return re.sub(rf"^[ \t]{{1,{len(opened[1])}}}", "", text, flags=re.MULTILINE) if opened[1] else text


def completed(text: str, starter: str, function: str) -> tuple[str, str]:
    """Returns what runs before a program, and the program, where the prompt shows the beginning of a function.

    A text that defines the function runs after the starter, whose imports and helpers it may use; one that does not is the rest
    of the function, indented where it is not.
    """
    if not starter or re.search(
        rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(function)}\b", text, re.MULTILINE
    ):
        return starter, text
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first[:1] not in (" ", "\t"):
        text = "\n".join("    " + line if line.strip() else line for line in text.split("\n"))
    return "", f"{starter.rstrip()}\n{text}"
