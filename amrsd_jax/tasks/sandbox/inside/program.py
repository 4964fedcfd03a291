"""Runs a program in a process of its own and answers the checker: calls of its functions, or one run on a standard input.

Nothing here is trusted, since the program can change all of it: it can only give other answers, which the checker reads as plain
values.
"""

import atexit
import builtins
import contextlib
import random
import sys
import threading
import types

from . import plain

NAME = "<program>"


def serve(connection, prelude, source):
    """Answers messages until the connection ends; the first says whether the program is a script or has functions to call.

    Args:
      connection: socket to the checker.
      prelude: source that is run before the program in the same namespace.
      source: the program.
    """
    script = plain.receive(connection)["script"]
    module = types.ModuleType("__main__" if script else "program")
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    random.seed(0)  # a fork of `random` seeds itself, and a resumed run would have another verdict
    builtins.exit = builtins.quit = sys.exit  # as `site` has them, which is not loaded
    references = []

    def load(message):
        exec(compile(prelude, "<starter>", "exec"), module.__dict__)
        try:
            exec(compile(source, NAME, "exec"), module.__dict__)
        except SystemExit:
            if not script:
                raise
        if script:
            threading._shutdown()  # as at the end of an interpreter: waits for threads, calls what was registered
            atexit._run_exitfuncs()
            with contextlib.suppress(Exception):  # the program may have closed or replaced it
                sys.stdout.flush()
            module.__dict__.clear()  # closes its other files

    def on(message):
        return references[message["on"]]

    operations = {
        "load": load,
        "global": lambda message: module.__dict__[message["name"]],
        "method": lambda message: getattr(module.__dict__["Solution"](), message["name"]),
        "call": lambda message: on(message)(
            *(argument(a) for a in message["args"]), **{name: argument(a) for name, a in message["kwargs"].items()}
        ),
        "get": lambda message: getattr(on(message), message["name"]),
        "set": lambda message: setattr(on(message), message["name"], argument(message["value"])),
        "item": lambda message: on(message)[argument(message["key"])],
        "list": lambda message: list(on(message)),
    }

    def argument(value):
        return plain.decode(value, references)

    def answer(message):
        try:
            value = operations[message["do"]](message)
        except BaseException as error:
            return plain.send(connection, {"error": _described(error, source)})
        try:
            plain.send(connection, {"plain": plain.encode(value)})
        except (plain.Unplain, ValueError, RecursionError):
            references.append(value)
            plain.send(connection, {"reference": len(references) - 1, "type": type(value).__name__})

    answer({"do": "load"})
    while True:
        answer(plain.receive(connection))


def _described(error, source):
    """Returns an exception's type, message, and the last line of the program in its traceback."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None and isinstance(error, SyntaxError) and error.filename == NAME:
        line = error.lineno
    lines = source.splitlines()
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error)[:500]
    except Exception:
        message = ""
    text = lines[line - 1].strip()[:200] if isinstance(line, int) and 0 < line <= len(lines) else ""
    return {"type": type(error).__name__[:100], "message": message, "line": line, "text": text}
