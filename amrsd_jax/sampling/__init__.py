"""Sampling: a stream of requests in, completions out."""

from amrsd_jax.sampling.engine import Weights, complete, harvests
from amrsd_jax.sampling.requests import Completion, Queue, Request
from amrsd_jax.sampling.transitions import Layout

__all__ = ["Completion", "Layout", "Queue", "Request", "Weights", "complete", "harvests"]
