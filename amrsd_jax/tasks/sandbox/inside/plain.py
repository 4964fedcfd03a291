"""Sends plain values between processes as JSON: what is decoded is of Python's own types, whatever the sender does.

None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict, instances of subclasses as their base, and
these types themselves. Arguments may also hold references to objects of the program (`remote.Reference`).
"""

import json
import struct
import time

LONGEST = 16 << 20  # bytes of a message, our choice
DEEPEST = 100  # levels of a value, our choice


class Unplain(Exception):
    """Says that a value is of another type, or nested too deep."""


class Closed(Exception):
    """Says that the other side closed the connection, or sent something that is no message."""


TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)}


def encode(value, depth=0, number=None):
    """Returns a value of JSON types that `decode` turns into an equal plain value; raises Unplain.

    Args:
      value: any value.
      depth: of the value in that of the caller.
      number: maps a value to its number if it is a reference, else to None; without it nothing is.
    """
    if number is not None and (reference := number(value)) is not None:
        return {"reference": reference}
    if depth > DEEPEST:
        raise Unplain("a value nested too deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int(value)
        return value if -(2**53) < value < 2**53 else {"int": hex(value)}  # hexadecimal: as fast as the number is long
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"dict": [[encode(k, depth + 1, number), encode(v, depth + 1, number)] for k, v in pairs]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [encode(item, depth + 1, number) for item in kind.__iter__(value)]
            return items if kind is list else {kind.__name__: items}
    if isinstance(value, type) and TYPES.get(value.__name__) is value:
        return {"type": value.__name__}
    raise Unplain(type(value).__name__)


def decode(value, references=None):
    """Returns the plain value; raises ValueError, TypeError, KeyError, OverflowError or RecursionError for anything else.

    Args:
      value: what `encode` has returned, or anything that JSON can hold.
      references: objects that references stand for, by number; without it a reference is an error.
    """
    if isinstance(value, list):
        return [decode(item, references) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "reference" and references is not None:
        return references[content]
    if kind == "dict":
        return {decode(k, references): decode(v, references) for k, v in content}
    if kind in ("tuple", "set", "frozenset"):
        return TYPES[kind](decode(item, references) for item in content)
    return _DECODERS[kind](content)


_DECODERS = {
    "type": TYPES.__getitem__,
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "complex": lambda parts: complex(*map(float.fromhex, parts)),
    "bytes": bytes.fromhex,
}


def send(connection, message):
    """Sends a message of JSON types over a socket; raises Unplain if it is too long."""
    text = json.dumps(message).encode()
    if len(text) > LONGEST:
        raise Unplain(f"a value of {len(text)} bytes")
    connection.sendall(struct.pack("!I", len(text)) + text)


def receive(connection, end=None):
    """Returns the next message, a dict; raises Closed, or TimeoutError if all of it is not there at `end`, by time.monotonic."""
    (size,) = struct.unpack("!I", _exactly(connection, 4, end))
    if size > LONGEST:
        raise Closed(f"a message of {size} bytes")
    try:
        message = json.loads(_exactly(connection, size, end))
    except (ValueError, RecursionError) as error:
        raise Closed("no message") from error
    if not isinstance(message, dict):
        raise Closed("no message")
    return message


def _exactly(connection, size, end):
    parts = []
    while size:
        if end is not None:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError
            connection.settimeout(left)
        try:
            part = connection.recv(min(size, 1 << 20))
        except ConnectionError as error:
            raise Closed("the connection ended") from error
        if not part:
            raise Closed("the connection ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
