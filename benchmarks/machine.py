"""Describes the machine of a benchmark, and measures its ceilings."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.floors import Ceilings

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "google-tunix")


def measure_ceilings(dtype: str, *, copy_bytes: int, matmul_size: int, repeats: int) -> Ceilings:
    """Returns the rates of copies and matrix products, each by the fastest of `repeats`."""
    size = jnp.dtype(dtype).itemsize
    source = jnp.ones(copy_bytes // size, dtype)
    square = jax.random.normal(jax.random.key(0), (matmul_size, matmul_size), dtype)
    copying, multiplying = jax.jit(lambda a: -a), jax.jit(jnp.matmul)  # a bare copy would return its argument
    copy, matmul = _fastest(copying, source, repeats=repeats), _fastest(multiplying, square, square, repeats=repeats)
    return Ceilings(2 * source.size * size / copy, 2 * matmul_size**3 / matmul)


def _fastest(program: Callable, *arguments: jax.Array, repeats: int) -> float:
    """Returns the seconds of the fastest of several calls, after one that compiles."""
    times = []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def describe() -> dict:
    """Returns hardware, versions and date; `load` is the system's load average at the time."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else _processor(),
        "devices_visible": jax.device_count(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **dict(filter(None, map(_version, PACKAGES)))},
        "date": datetime.date.today().isoformat(),
    }


def _version(package: str) -> tuple[str, str] | None:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the name of the processor, or its architecture where the name is not known."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
