"""Reads what a compiled program exchanges between devices."""

from amrsd_jax.compile.hlo import COLLECTIVES, Text


def collectives(program, *kinds: str, in_loops: bool | None = None) -> list[int]:
    """Returns the numbers of elements of the arrays that collectives exchange.

    Args:
      program: a compiled program.
      kinds: of collectives; none: all.
      in_loops: of those inside of loops, or outside of them; None: of both.
    """
    return [
        buffer.elements
        for operation, loop in Text(program.as_text()).operations()
        for buffer in operation.results
        if operation.collective in (kinds or COLLECTIVES) and in_loops in (None, loop.level[0] != "0")
    ]
