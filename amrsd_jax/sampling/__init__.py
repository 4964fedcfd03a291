"""Sampling: turns a stream of requests into completions, with continuous batching over a fixed number of slots."""

from collections.abc import Callable, Iterable, Iterator

from amrsd_jax.records import Completion, Request
from amrsd_jax.sampling.engine import SamplerParams, complete, completed_batches
from amrsd_jax.sampling.requests import RequestQueue
from amrsd_jax.sampling.stop import StopStrings
from amrsd_jax.sampling.transitions import SamplerConfig

Sampler = Callable[[Iterable[Request]], Iterator[Completion]]  # `complete` with everything but the requests given

__all__ = [
    "RequestQueue",
    "Sampler",
    "SamplerConfig",
    "SamplerParams",
    "StopStrings",
    "complete",
    "completed_batches",
]
