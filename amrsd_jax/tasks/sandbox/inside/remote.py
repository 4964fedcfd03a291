"""Stands in for a program in the checker: starts its processes through the spawner, and asks them for calls and values.

A program's answers are plain values, or references to objects that stay in its process. A reference can be called, passed back
and asked for an attribute, an item or its elements; it has no truth and equals nothing, so no method of the program decides a
test.
"""

import builtins
import contextlib
import os
import signal
import socket
import time

from . import plain


class Failure(Exception):
    """Says why a program gave no answer.

    Attributes:
      kind: "error" (it raised), "timed out", "ended" (its process did), or "unplain" (no plain value where one is needed).
      details: of an error its type, message, line and the text of that line; of an end the signal.
    """

    def __init__(self, kind, **details):
        super().__init__(kind)
        self.kind, self.details = kind, details


class Program:
    """Stands for a program, whose process starts when it is first asked, and again after it has ended.

    Args:
      spawner: socket to the spawner.
      seconds: wall time of one process.
      deadline: of everything, by `time.monotonic`.

    Attributes:
      process: number of the process that runs, or ran last.
      failed_to_load: whether a process could not run the program to its end, so that no test can pass.
      last_call, last_value: texts of the last call and its value since a test began, None for none.
    """

    def __init__(self, spawner, seconds, deadline):
        self._spawner, self._seconds, self._deadline = spawner, seconds, deadline
        self._connection = self._pid = self._end = None
        self.process, self.failed_to_load = 0, False
        self.last_call = self.last_value = None

    def run(self, text, longest):
        """Runs the program as a script on a standard input; returns its output, bytes, of which it may write `longest`."""
        with open(os.memfd_create("in"), "w+b") as given, open(os.memfd_create("out"), "w+b") as written:
            given.write(text.encode())
            given.seek(0)
            self.start(script=True, files=(given.fileno(), written.fileno()))
            try:
                self._answer()
            except Failure as failure:  # a program that ends its process has run too
                if failure.kind != "ended" or failure.details.get("signal"):
                    raise
            finally:
                self.stop()
            written.seek(0)
            return written.read(longest)

    def start(self, script=False, files=()):
        """Starts a process, which loads the program."""
        self.stop()
        self.process += 1
        self._connection, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._spawner, [b"s"], [theirs.fileno(), *files])
        self._pid = plain.receive(self._spawner)["pid"]
        self._end = min(time.monotonic() + self._seconds, self._deadline)
        self._send({"script": script})

    def load(self):
        """Starts a process where none runs, and waits until it has loaded the program."""
        if self._connection is None:
            self.start()
            try:
                self._answer()
            except Failure:
                self.failed_to_load = True
                self.stop()
                raise

    def stop(self):
        """Kills the process, with all that it has started; returns how it ended: signal and processor seconds."""
        if self._connection is None:
            return {}
        self._connection.close()
        self._connection = None
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except OSError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        return plain.receive(self._spawner)

    def ask(self, do, **message):
        """Returns the program's answer, a plain value or a `Reference`; raises Failure."""
        self.load()
        self._send({"do": do, **message})
        return self._answer()

    def call(self, reference, name, args, kwargs):
        """Calls an object of the program, and keeps the texts of call and value."""
        shown = [text(a) for a in args] + [f"{key}={text(value)}" for key, value in kwargs.items()]
        self.last_call, self.last_value = f"{name}({', '.join(shown)})", None
        arguments = {"args": [argument(a) for a in args], "kwargs": {k: argument(v) for k, v in kwargs.items()}}
        value = self.ask("call", on=reference, **arguments)
        self.last_value = text(value)
        return value

    def _send(self, message):
        self._connection.settimeout(max(0.01, self._end - time.monotonic()))
        try:
            plain.send(self._connection, message)
        except (TimeoutError, ConnectionError):
            self._gone()

    def _answer(self):
        connection = self._connection
        try:
            answer = plain.receive(connection, self._end)
        except TimeoutError:
            self.stop()
            raise Failure("timed out") from None
        except plain.Closed:
            self._gone()
        if "plain" in answer:
            try:
                return plain.decode(answer["plain"])
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                raise Failure("unplain", type="malformed value") from None
        if isinstance(answer.get("reference"), int):
            return Reference(self, answer["reference"], _word(answer.get("type")))
        error = answer.get("error")
        error = error if isinstance(error, dict) else {}
        line = error.get("line")
        raise _raised(
            type=_word(error.get("type")), message=str(error.get("message") or "")[:500],
            line=line if type(line) is int and 0 < line < 10**6 else None, text=str(error.get("text") or "")[:200],
        )  # fmt: skip

    def _gone(self):
        """Raises the failure of a process that has closed its connection or does not read."""
        ended = self.stop()
        if ended.get("out_of_time") or time.monotonic() >= self._end:
            raise Failure("timed out") from None
        raise Failure("ended", signal=ended.get("signal")) from None


class Refused(Failure, TypeError):
    """Says that a reference is no plain value; a TypeError, since `list` asks for a length and does without one."""


class Reference:
    """Stands in for an object of the program, in the process with this number of it."""

    def __init__(self, program, number, type_name, name=None):
        self.__dict__.update(_program=program, _number=number, _type=type_name, _name=name or type_name)

    def __call__(self, *args, **kwargs):
        return self._program.call(self._number, self._name, args, kwargs)

    def __getattr__(self, name):
        return _named(self._program.ask("get", on=self._number, name=name), name)

    def __setattr__(self, name, value):
        self._program.ask("set", on=self._number, name=name, value=argument(value))

    def __getitem__(self, key):
        return self._program.ask("item", on=self._number, key=argument(key))

    def __iter__(self):
        elements = self._program.ask("list", on=self._number)
        return self._refuse() if type(elements) is Reference else iter(elements)

    def __repr__(self):
        return f"<{self._type}>"

    def _refuse(self, *_):
        raise Refused("unplain", type=self._type)

    __str__ = __format__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __hash__ = __len__ = __contains__ = _refuse


def _named(value, name):
    if isinstance(value, Reference):
        value.__dict__["_name"] = name
    return value


def lookup(program, name):
    """Returns a name of the program's namespace; raises Failure, an error, where it has none."""
    return _named(program.ask("global", name=name), name)


def argument(value):
    """Returns a value as it is sent to the program; raises TypeError if it is neither plain nor a reference."""
    try:
        return plain.encode(value, number=lambda item: item._number if type(item) is Reference else None)
    except plain.Unplain as error:
        raise TypeError(f"a test passes the program a {error}; only plain values can be passed") from None


def text(value, longest=300):
    """Returns how a value is written, cut."""
    try:
        written = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return f"<{type(value).__name__} that is too long to be written>"
    return written if len(written) <= longest else written[:longest] + "..."


def _word(value):
    return value[:100] if isinstance(value, str) and value.isidentifier() else "object"


def _raised(**details):
    """Returns a failure that is also an exception of the type that the program raised, for tests that expect one.

    But for those that end an iteration, with which a program could shorten `all(map(candidate, ...))`.
    """
    kind = getattr(builtins, details["type"], None)
    ends = (StopIteration, StopAsyncIteration)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, ends):
        try:
            return type("Raised", (Failure, kind), {})("error", **details)
        except TypeError:
            pass
    return Failure("error", **details)
