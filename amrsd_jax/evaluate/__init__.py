"""Evaluates policies on benchmarks, during training and by `python -m amrsd_jax.evaluate`.

config ──benchmarks──> questions ──answers──> answers ──measure, estimators──> metrics ──files──> Parquet, JSON, Markdown
"""

from amrsd_jax.evaluate.benchmarks import Benchmark, benchmarks
from amrsd_jax.evaluate.evaluator import Evaluation, Evaluator

__all__ = ["Benchmark", "Evaluation", "Evaluator", "benchmarks"]
