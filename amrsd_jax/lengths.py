"""Padded widths for rows of any length: few, so that few programs are compiled, yet close enough to waste little on padding."""

import numpy as np
from jaxtyping import Float, Integer

MIN_BUCKET = 64  # a program for fewer tokens would not be worth its compilation (our choice)


def bucket(length: int, longest: int) -> int:
    """Returns the first of MIN_BUCKET times 1, 2, 4, ... that holds `length` tokens, or `longest` if that is less."""
    width = MIN_BUCKET
    while width < length:
        width *= 2
    return min(width, longest)


def buckets(lengths: Integer[np.ndarray, " N"], longest: int) -> Integer[np.ndarray, " N"]:
    """Returns the `bucket` of each length."""
    return np.array([bucket(length, longest) for length in lengths.tolist()], int)


def mask_lengths(mask: Float[np.ndarray, "N T"]) -> Integer[np.ndarray, " N"]:
    """Returns the number of tokens of each row up to its last one with a positive mask, 0 if there is none."""
    return np.max((mask > 0) * np.arange(1, mask.shape[1] + 1), axis=1, initial=0)
