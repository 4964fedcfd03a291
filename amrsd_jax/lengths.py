"""Static lengths for rows of any length: few, so that few programs are compiled; close, so that little is padding."""

import numpy as np
from jaxtyping import Float, Integer

LEAST = 64  # tokens below which a program of its own is not worth its compilation (our choice)


def bucket(length: int, longest: int) -> int:
    """The first of LEAST, 2 LEAST, 4 LEAST, ... that holds `length` tokens; `longest` where that is less."""
    width = LEAST
    while width < length:
        width *= 2
    return min(width, longest)


def buckets(lengths: Integer[np.ndarray, " N"], longest: int) -> Integer[np.ndarray, " N"]:
    """`bucket` of each length."""
    return np.array([bucket(length, longest) for length in lengths.tolist()], int)


def reach(mask: Float[np.ndarray, "N T"]) -> Integer[np.ndarray, " N"]:
    """Tokens of each row up to its last one that counts; 0 where none does."""
    return np.max((mask > 0) * np.arange(1, mask.shape[1] + 1), axis=1, initial=0)
