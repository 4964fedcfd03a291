"""Sampling: a stream of requests in, completions out."""

from amrsd_jax.sampling.engine import Completion, Layout, Request, complete

__all__ = ["Completion", "Layout", "Request", "complete"]
