"""Reads what a compiled program exchanges between devices."""

import math
import re

_COLLECTIVE = re.compile(r" = (.*) (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def collectives(text: str, *, in_loops: bool) -> list[int]:
    """Returns the numbers of elements of the arrays that collectives exchange, in the bodies of loops or outside them."""
    bodies = set(re.findall(r"body=%([\w.-]+)", text))
    sizes = []
    for name, body in re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*?\{$(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        if (name in bodies) == in_loops:
            shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(_COLLECTIVE.findall(body)))
            sizes += [math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes]
    return sizes
