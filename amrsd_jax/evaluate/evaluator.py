"""Evaluator: a benchmark and a policy's weights in, answers and metrics out; the same in training and in the command."""

import dataclasses
from typing import Any

from amrsd_jax import rng
from amrsd_jax.evaluate.answers import Answer, ask
from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.evaluate.measure import measure
from amrsd_jax.policy import Policy
from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids
from amrsd_jax.sampling import Layout, Weights, complete
from amrsd_jax.tasks.base import Problem
from amrsd_jax.tasks.stream import take


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One benchmark, answered.

    Attributes:
      answers: see `answers.ask`.
      metrics: see `measure.measure`; and too_long, the questions left out because their prompt is.
    """

    answers: list[Answer]
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Asks a policy the questions of benchmarks.

    Attributes:
      benchmarks: what there is to ask.
      seed: of sampling and bootstrap, which have streams of their own for every benchmark.
      policy, layout: what samples, in which shape.
      chat_template: arguments of the tokenizer's chat template.
    """

    benchmarks: tuple[Benchmark, ...]
    seed: int
    policy: Policy
    layout: Layout
    tokenizer: Tokenizer
    chat_template: dict[str, Any]

    def __call__(self, benchmark: Benchmark, weights: Weights) -> Evaluation:
        """Answers and metrics of one benchmark; the same questions and the same noise at every call.

        Args:
          weights: what the sampler reads.

        Raises:
          ValueError: no prompt fits.
        """

        def encode(problem: Problem) -> list[int]:
            return chat_ids(self.tokenizer, benchmark.texts.ask(problem.question), **self.chat_template)

        task, name, layout = benchmark.task, benchmark.name, self.layout
        count = benchmark.problems or task.size(benchmark.split)
        prompts, _, too_long = take(task, benchmark.split, 0, count, encode=encode, longest=layout.prompt_length)
        key = rng.key(self.seed, "evaluation" if name == "test" else f"evaluation/{name}", 0)
        answers = ask(
            benchmark, prompts, self.tokenizer,
            lambda requests: complete(self.policy, layout, weights, requests, key), layout.group,
        )  # fmt: skip
        metrics = measure(answers, task.family, rng.host(self.seed, f"bootstrap/{name}"))
        return Evaluation(answers, metrics | {"too_long": too_long})
