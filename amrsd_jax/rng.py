"""All randomness: a key is a function of (seed, stream, step, row, position), so a resumed run needs no saved generator.

Nothing else in the package makes a key. Each purpose has its own stream, so that switching a phase on or off
(reflections, evaluation) never shifts the randomness of another.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Integer, Key


def _number(stream: str) -> int:
    return zlib.crc32(stream.encode())


def key(seed: int, stream: str, *indices: int) -> Key[Array, ""]:
    """Device key of one purpose.

    Args:
      seed: the run's seed.
      stream: name of the purpose, e.g. "rollout" or "reflection".
      *indices: non-negative integers such as the step.

    The generator is named, so that the same numbers come out whatever JAX's default becomes.
    """
    with jax.transfer_guard("allow"):  # a key's seed and indices do come from the host
        k = jax.random.key(seed, impl="threefry2x32")
        for index in (_number(stream), *indices):
            k = jax.random.fold_in(k, index)
        return k


def fold_rows(keys: Key[Array, " N"], rows: Integer[Array, " N"]) -> Key[Array, " N"]:
    """One key per row, from that of its purpose and its number, whichever slot or batch the row runs in."""
    return jax.vmap(jax.random.fold_in)(keys, rows)


def fold_positions(keys: Key[Array, " N"], positions: Integer[Array, " N"]) -> Key[Array, " N"]:
    """The key of one token of each row: its row's key folded with its position in the response."""
    return jax.vmap(jax.random.fold_in)(keys, positions)


def host(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """Host generator of one purpose: problem drawing, data order, warm-up documents, bootstrap."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _number(stream), *indices])))
