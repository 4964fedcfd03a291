"""Evaluates a policy on a benchmark, in training and in the command alike: samples answers and measures them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxtyping import Array, Key

from amrsd_jax import interrupt, rng
from amrsd_jax.evaluate.answers import Answer, ask
from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.evaluate.measure import measure
from amrsd_jax.policy import Policy
from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids
from amrsd_jax.records import Completion, Problem, Prompts, Request
from amrsd_jax.sampling import SamplerConfig, SamplerParams, completed_batches
from amrsd_jax.tasks.stream import next_prompts

Track = Callable[[Iterable[Completion], str, int], Iterable[Completion]]  # (items, what they are, number) -> items


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of one benchmark.

    Attributes:
      answers: see `answers.ask`.
      metrics: see `measure.measure`; also too_long, the number of questions left out because their prompts are too long. Of a
        mixture those of all its questions, and of each set under its name and a slash.
    """

    answers: list[Answer]
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates a policy on benchmarks.

    Attributes:
      benchmarks: the benchmarks that can be evaluated.
      seed: seed of sampling and bootstrap, each of which has a random stream per benchmark.
      policy, sampler: the model, and the shape of the sampler.
      tokenizer, chat_template: the tokenizer, and arguments of its chat template.
    """

    benchmarks: tuple[Benchmark, ...]
    seed: int
    policy: Policy
    sampler: SamplerConfig
    tokenizer: Tokenizer
    chat_template: dict[str, Any]

    def __call__(self, benchmark: Benchmark, params: SamplerParams, track: Track) -> Evaluation:
        """Evaluates one benchmark, with the same questions and the same sampling noise at every call.

        Args:
          benchmark: one of `benchmarks`.
          params: the sampler's parameters.
          track: shows how many answers are done, as `runtime.console.track` does.

        Raises:
          ValueError: see `prompts`.
          Interrupted: a signal was received.
        """
        task, name, sampler = benchmark.task, benchmark.name, self.sampler
        prompts, too_long = self.prompts(benchmark)
        key = rng.key(self.seed, "evaluation" if name == "test" else f"evaluation/{name}", 0)
        label, count = f"evaluation on {name}, answers", len(prompts.tokens) * (benchmark.samples + 1)
        answers = ask(
            benchmark, prompts, self.tokenizer,
            lambda requests: track(self._complete(params, requests, key), label, count), sampler.group,
            sampler.stop_strings.strings if sampler.stop_strings else (),
        )  # fmt: skip
        metrics = measure(answers, task.family_of, rng.host(self.seed, f"bootstrap/{name}"))
        data_sets = sorted({answer.problem.data_set for answer in answers} - {""})
        if data_sets:  # whose verifiers have scores of their own
            metrics = {metric: value for metric, value in metrics.items() if not metric.startswith("score_")}
        for data_set in data_sets:
            own = [answer for answer in answers if answer.problem.data_set == data_set]
            measured = measure(own, task.family_of, rng.host(self.seed, f"bootstrap/{name}/{data_set}"))
            metrics |= {f"{data_set}/{metric}": value for metric, value in measured.items()}
        return Evaluation(answers, metrics | {"too_long": too_long})

    def prompts(self, benchmark: Benchmark) -> tuple[Prompts, int]:
        """Returns the prompts of a benchmark's questions, and the number of questions left out because theirs are too long.

        Raises:
          ValueError: all prompts are too long.
        """

        def encode(problem: Problem) -> list[int]:
            messages = benchmark.texts[problem.data_set].question_prompt(problem.question, problem.messages)
            return chat_ids(self.tokenizer, messages, **self.chat_template)

        count, longest = benchmark.problems or benchmark.task.size(benchmark.split), self.sampler.prompt_length
        try:
            prompts, _, too_long = next_prompts(
                benchmark.task, benchmark.split, 0, count, encode=encode, longest=longest
            )
        except ValueError as error:
            raise ValueError(f"benchmark {benchmark.name!r}: {error}") from error
        return prompts, too_long

    def _complete(
        self, params: SamplerParams, requests: Iterable[Request], key: Key[Array, ""]
    ) -> Iterator[Completion]:
        """Yields completions, and raises Interrupted between two segments of decoding if a signal was received."""
        for finished in completed_batches(self.policy, self.sampler, params, requests, key):
            interrupt.check()
            yield from finished
