"""Makes random keys and generators from (seed, stream, step, row, position), so that a resumed run needs no saved generator.

No other module creates keys. Each purpose has its own named stream, so that switching one phase on or off (reflections,
evaluation) does not change the random numbers of another.
"""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Integer, Key


def _number(stream: str) -> int:
    return zlib.crc32(stream.encode())


def key(seed: int, stream: str, *indices: int) -> Key[Array, ""]:
    """Returns the device key of a stream, of a fixed kind, so that JAX's default generator does not matter.

    Args:
      seed: the run's seed.
      stream: name of the purpose, e.g. "rollout" or "reflection".
      *indices: non-negative integers such as the step.
    """
    with jax.transfer_guard("allow"):  # seed and indices come from the host
        k = jax.random.key(seed, impl="threefry2x32")
        for index in (_number(stream), *indices):
            k = jax.random.fold_in(k, index)
        return k


def fold(keys: Key[Array, " N"], numbers: Integer[Array, " N"]) -> Key[Array, " N"]:
    """Folds a number into the key of each row: a row's number into its stream's key, or a token's position into its row's key.

    So the noise of a token does not depend on the slot or batch that its row is in.
    """
    return jax.vmap(jax.random.fold_in)(keys, numbers)


def host(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """Returns the host generator of a stream, e.g. for problems, data order, warm-up documents or the bootstrap."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _number(stream), *indices])))
