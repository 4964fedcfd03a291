"""Static lengths for rows of any length: few, so that few programs are compiled; close, so that little is padding."""

LEAST = 128  # tokens below which a program of its own is not worth its compilation (our choice)


def bucket(length: int, longest: int) -> int:
    """The first of LEAST, 2 LEAST, 4 LEAST, ... that holds `length` tokens; `longest` where that is less."""
    width = LEAST
    while width < length:
        width *= 2
    return min(width, longest)
