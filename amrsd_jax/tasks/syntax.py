"""Parses Python source, in one thread at a time."""

import ast
import threading

_LOCK = threading.Lock()


def parse(text: str) -> ast.Module:
    """Returns the syntax tree of a text, as `ast.parse` does, whose errors it raises.

    Threads that parse at once disturb each other in Python 3.11 where garbage collection runs Python code, as JAX has it do: some
    raise SystemError, "AST constructor recursion depth mismatch" (CPython's issue 106905).
    """
    with _LOCK:
        return ast.parse(text)
