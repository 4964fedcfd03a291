"""Asking a benchmark: every question's samples and one greedy answer through one stream, judged while others are sampled."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.records import Prompts
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.tasks.base import Problem, Verdict
from amrsd_jax.tasks.verify import THREADS


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to one question.

    Attributes:
      question: its number in the benchmark; `problem` is the question itself.
      mode: "sampled" or "greedy"; `sample` counts from 0 within each.
      tokens: their number, the stop token included.
      finish_reason: "stop" or "length".
    """

    question: int
    problem: Problem
    mode: str
    sample: int
    text: str
    verdict: Verdict
    tokens: int
    finish_reason: str


def ask(
    benchmark: Benchmark,
    prompts: Prompts,
    tokenizer: Tokenizer,
    sample: Callable[[Iterable[Request]], Iterator[Completion]],
    group: int,
) -> list[Answer]:
    """All answers: the sampled ones question by question, then the greedy ones.

    Args:
      prompts: of the benchmark's questions.
      sample: requests in, completions out in any order.
      group: most samples that one request may ask for.
    """
    judge = benchmark.task.verify
    with ThreadPoolExecutor(THREADS) as threads:
        judged = []
        for completion in sample(requests(benchmark, prompts, group)):
            mode, question, first = completion.request.tag
            problem = prompts.problems[question]
            text = tokenizer.decode(completion.tokens, skip_special_tokens=True)
            where = (question, problem, mode, first + completion.index, text)
            judged.append((where, threads.submit(judge, problem, text), completion))
        answers = [Answer(*where, v.result(), len(c.tokens), c.finish_reason) for where, v, c in judged]
    return sorted(answers, key=lambda answer: (answer.mode == "greedy", answer.question, answer.sample))


def requests(benchmark: Benchmark, prompts: Prompts, group: int) -> Iterator[Request]:
    """The stream. Sample j of question i is row i k + j, whichever request it is part of; tags are (mode, i, first j)."""
    k, questions = benchmark.samples, len(prompts.tokens)
    for i, tokens in enumerate(prompts.tokens):
        for first in range(0, k, group):
            yield Request(
                tokens, row=i * k + first, count=min(group, k - first), temperature=benchmark.temperature,
                top_k=benchmark.top_k, top_p=benchmark.top_p, tag=("sampled", i, first),
            )  # fmt: skip
    for i, tokens in enumerate(prompts.tokens):
        yield Request(tokens, row=questions * k + i, temperature=0.0, tag=("greedy", i, 0))
