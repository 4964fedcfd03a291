"""Several processes as one run: joining them, host values on the devices of all, and what one of them does for all.

Every process runs the same program on the same host values: prompts, noise and order follow from the seed and the step.
Arrays live on the devices of all; what a host needs of them is gathered to every host, so that all take the same turns. What
could differ between hosts (a verifier's timeout, a signal, whether a file is there) they agree on here. Process 0 writes.
"""

import functools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def join() -> None:
    """Joins the processes of this run, if there are several; to be called before anything touches a device.

    Slurm steps, Open MPI and TPU pods are recognised by JAX. Elsewhere every process is given JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. JAX_NUM_PROCESSES=1 never joins anything.

    Raises:
      ValueError: several processes, but nothing says where the coordinator is or which of them this one is.
    """
    count, started = _number("JAX_NUM_PROCESSES"), (_number("SLURM_STEP_NUM_TASKS"), _number("OMPI_COMM_WORLD_SIZE"))
    pod = (jax.config.jax_platforms or "").startswith("tpu")  # JAX sets it on a TPU VM, which may be one of several
    if count != 1 and (count or any(number not in (None, 1) for number in started) or pod):
        # CPU devices run programs that do not depend on each other in any order, and their collectives would wait for ever.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.distributed.initialize(num_processes=count, process_id=_number("JAX_PROCESS_ID"))


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    return int(value) if value else None


def first() -> bool:
    """Whether this is process 0, which writes."""
    return jax.process_index() == 0


def only_first(function: Callable) -> Callable:
    """The function on process 0; nothing, and None, on the others."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs) if first() else None

    return wrapped


# ---------------------------------------------------------------- arrays


def put(tree: Any, sharding: NamedSharding | None) -> Any:
    """Host values, equal on all processes, as arrays of that sharding; None is this process's own device."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    with jax.transfer_guard("allow"):  # these do come from the host
        return _placed(sharding)(tree)


@functools.lru_cache
def _placed(sharding: NamedSharding) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def fetch(tree: Any) -> Any:
    """Values of arrays on every host, whichever process's devices hold them."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    with jax.transfer_guard("allow"):  # these do go to the host
        return multihost_utils.process_allgather(tree, tiled=True)


# ---------------------------------------------------------------- host values


def gather(value: Any) -> list:
    """Every process's value, in the order of the processes: anything that JSON can hold."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    with jax.transfer_guard("allow"):
        sizes = multihost_utils.process_allgather(np.int32(text.size))
        room = 1 << int(sizes.max()).bit_length()  # few sizes, for each is a program of its own
        texts = multihost_utils.process_allgather(np.pad(text, (0, room - text.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes, strict=True)]


def agree(value: Any) -> Any:
    """Process 0's value, on all: anything that JSON can hold."""
    return gather(value)[0]


def spread(function: Callable, *columns: Sequence, threads: int) -> list:
    """`function` of every row of the columns; each process does its share, in threads, and has all results.

    Results are what JSON can hold.
    """
    rows = list(zip(*columns, strict=True))
    with ThreadPoolExecutor(threads) as pool:
        mine = list(pool.map(lambda row: function(*row), rows[jax.process_index() :: jax.process_count()]))
    shares = gather(mine)
    return [shares[i % len(shares)][i // len(shares)] for i in range(len(rows))]
