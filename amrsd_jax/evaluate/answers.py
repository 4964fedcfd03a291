"""Answers the questions of a benchmark: k samples and one greedy answer each, verified while sampling goes on."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from amrsd_jax import interrupt, processes
from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.records import Problem, Prompts, Request, Verdict
from amrsd_jax.sampling import Sampler
from amrsd_jax.tasks.verify import THREADS, judged


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to one question.

    Attributes:
      question: number of the question in the benchmark.
      problem: the question.
      mode: "sampled" or "greedy".
      sample: number of the answer among those of its question and mode, from 0.
      text, verdict: the answer, and the verifier's judgement.
      tokens: number of tokens, the stop token included.
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
    sample: Sampler,
    group: int,
    stop: Sequence[str] = (),
) -> list[Answer]:
    """Returns all answers to a benchmark: the sampled ones, question by question, then the greedy ones.

    Args:
      benchmark: its task verifies the answers.
      prompts: of the benchmark's questions.
      tokenizer: decodes completions.
      sample: the sampler; completions may come in any order.
      group: largest number of answers per request.
      stop: strings that end an answer.

    Raises:
      Interrupted: a signal was received.
      OSError, RuntimeError: a verifier failed, see `processes.raise_on_all`.
    """
    threads = ThreadPoolExecutor(THREADS)
    judge = functools.partial(judged, benchmark.task, tokenizer, stop=stop)
    try:
        pending = []
        for completion in sample(requests(benchmark, prompts, group)):
            request, index = completion.request, completion.index
            question, first = request.tag
            problem, greedy = prompts.problems[question], request.greedy and index == request.count - 1
            text = tokenizer.decode(completion.tokens, skip_special_tokens=True)
            fields = (question, problem, "greedy" if greedy else "sampled", 0 if greedy else first + index, text)
            verdict = threads.submit(judge, request.prompt, problem, text)
            pending.append((fields, verdict, completion))
        answers, error = [], None
        for number, (fields, verdict, completion) in enumerate(pending):
            if number % 64 == 0:
                interrupt.check()
            try:
                answers.append(Answer(*fields, verdict.result(), len(completion.tokens), completion.finish_reason))
            except Exception as raised:
                error = error or raised
        processes.raise_on_all(error)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # an interrupted evaluation waits for no verdict
    return sorted(answers, key=lambda answer: (answer.mode == "greedy", answer.question, answer.sample))


def requests(benchmark: Benchmark, prompts: Prompts, group: int) -> Iterator[Request]:
    """Yields the requests of a benchmark, with tags (i, j of the first sample); the last of a question has its greedy answer.

    Rows determine the sampling noise: sample j of question i is row i k + j, whatever the group. A question's answers are divided
    evenly, and the requests of equal size come together, because those for one answer are not prefilled with others.
    """
    k = benchmark.samples
    for answers in np.array_split(np.arange(k + 1), -(-(k + 1) // group)):
        first, last = int(answers[0]), int(answers[-1])
        for i, tokens in enumerate(prompts.tokens):
            yield Request(
                tokens, row=i * k + first, count=last - first + 1, greedy=last == k, temperature=benchmark.temperature,
                top_k=benchmark.top_k, top_p=benchmark.top_p, tag=(i, first),
            )  # fmt: skip
