"""Evaluate: a policy on benchmarks, in training and as `python -m amrsd_jax.evaluate`.

config ──benchmarks──> questions ──answers──> answers ──measure, statistics──> metrics ──files──> Parquet, JSON, Markdown
"""

from amrsd_jax.evaluate.benchmarks import Benchmark, benchmarks
from amrsd_jax.evaluate.evaluator import Evaluation, Evaluator

__all__ = ["Benchmark", "Evaluation", "Evaluator", "benchmarks"]
