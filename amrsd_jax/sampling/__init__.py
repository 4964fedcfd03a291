"""Sampling: a stream of requests in, completions out."""

from amrsd_jax.sampling.engine import Completion, Layout, Queue, Request, Weights, complete, harvests

__all__ = ["Completion", "Layout", "Queue", "Request", "Weights", "complete", "harvests"]
