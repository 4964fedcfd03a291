"""Supports runs of several processes: initialization, arrays on the devices of all of them, and exchange of host values.

Every process runs the same program on the same host values: prompts, noise and order follow from the seed and the step.
Arrays are split over the devices of all processes; values that the host needs are gathered to every host, so that all take the
same branches. Values that may differ between hosts (a verifier's timeout, a signal, whether a file exists) are exchanged here.
Only process 0 writes files.
"""

import functools
import http.client
import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def initialize() -> None:
    """Connects the processes of this run, if there are several. Must be called before anything uses a device.

    JAX recognises Slurm steps, Open MPI and TPU slices of several hosts. Elsewhere every process needs JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. JAX_NUM_PROCESSES=1 makes this process run alone.

    Raises:
      ValueError: there are several processes, but the coordinator's address or this process's number is unknown.
    """
    count, started = _integer("JAX_NUM_PROCESSES"), (_integer("SLURM_STEP_NUM_TASKS"), _integer("OMPI_COMM_WORLD_SIZE"))
    if count != 1 and (count or any(number not in (None, 1) for number in started) or _may_share_a_tpu()):
        # CPU devices run independent programs, and the loops of one program, in any order, so that collectives could meet those
        # of another program or loop. One program at a time, on one thread (NPROC is read by XLA), has one order.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        if jax.config.jax_platforms == "cpu":
            os.environ["NPROC"] = "1"
        jax.distributed.initialize(num_processes=count, process_id=_integer("JAX_PROCESS_ID"))


def _may_share_a_tpu() -> bool:
    """Returns whether this may be one of several hosts of a TPU slice, which JAX then joins.

    GKE names the hosts in the environment. On other TPU VMs JAX asks the metadata server, and for minutes where there is none,
    as on Kaggle: it is tried here first, for at most two seconds.
    """
    if not (jax.config.jax_platforms or "").startswith("tpu"):  # JAX sets it where it finds chips
        return False
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts:
        return "," in hosts or (_integer("MEGASCALE_NUM_SLICES") or 1) > 1
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/tpu-env", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):  # HTTPException: an answer that is no HTTP
        return False


def _integer(name: str) -> int | None:
    """Returns an environment variable as an integer, None where it is not set."""
    value = os.environ.get(name)
    return int(value) if value else None


def is_first() -> bool:
    """Returns whether this is process 0, the one that writes files."""
    return jax.process_index() == 0


def only_first(function: Callable) -> Callable:
    """Decorates a function so that it runs on process 0 only; on the others it does nothing and returns None."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs) if is_first() else None

    return wrapped


# ---------------------------------------------------------------- arrays


def put(tree: Any, sharding: NamedSharding | None) -> Any:
    """Returns arrays of a sharding with host values that all processes have; None is this process's default device."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    with jax.transfer_guard("allow"):  # an intended transfer from the host
        return _placed(sharding)(tree)


@functools.lru_cache
def _placed(sharding: NamedSharding) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def fetch(tree: Any) -> Any:
    """Returns arrays as host values on every process, also those on other processes' devices."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    with jax.transfer_guard("allow"):  # an intended transfer to the host
        return multihost_utils.process_allgather(tree, tiled=True)


# ---------------------------------------------------------------- host values


def allgather(value: Any) -> list:
    """Returns every process's value, in the order of the processes. The value must be representable in JSON."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    with jax.transfer_guard("allow"):
        sizes = multihost_utils.process_allgather(np.int32(text.size))
        room = 1 << int(sizes.max()).bit_length()  # rounded up, since a program is compiled for each size
        texts = multihost_utils.process_allgather(np.pad(text, (0, room - text.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(texts, sizes, strict=True)]


def broadcast(value: Any) -> Any:
    """Returns process 0's value on all processes. The value must be representable in JSON."""
    return allgather(value)[0]


def from_first(function: Callable[[], Any]) -> Any:
    """Returns, on all processes, what a function returns on process 0. The value must be representable in JSON.

    Raises:
      OSError, ValueError: on all processes, what the function raises on process 0.
    """
    value = error = None
    if is_first():
        try:
            value = function()
        except (OSError, ValueError) as raised:
            error = raised
    value, text, kind = broadcast([value, str(error), error and isinstance(error, OSError)])
    if kind is not None:
        raise error or (OSError if kind else ValueError)(text)
    return value


def map_rows(function: Callable, *columns: Sequence, threads: int) -> list:
    """Applies `function` to every row of the columns; each process computes a share, in threads, and returns all results.

    Results must be representable in JSON.

    Raises:
      OSError, RuntimeError: see `raise_on_all`.
    """
    rows, share, error = list(zip(*columns, strict=True)), [], None
    pool = ThreadPoolExecutor(threads)
    try:
        share = list(pool.map(lambda row: function(*row), rows[jax.process_index() :: jax.process_count()]))
    except Exception as raised:
        error = raised
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a second signal does not wait here for the rows in progress
    raise_on_all(error)
    shares = allgather(share)
    return [shares[i % len(shares)][i // len(shares)] for i in range(len(rows))]


def raise_on_all(error: Exception | None) -> None:
    """Raises an error of one process on all of them, because the others would wait for its part; None stands for no error.

    Raises:
      OSError, RuntimeError: an OSError or any other error of one of several processes; of a single one, its own error.
    """
    if jax.process_count() == 1 and error:
        raise error
    text = f"process {jax.process_index()}: {type(error).__name__}: {error}"
    fault = next(filter(None, allgather(error and [text, isinstance(error, OSError)])), None)
    if fault:
        raise (OSError if fault[1] else RuntimeError)(fault[0]) from error
