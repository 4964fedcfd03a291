"""Evaluate: accuracy on held-out problems, sampled and greedy, with intervals."""

import math
from collections.abc import Callable, Iterable, Iterator

from transformers import PreTrainedTokenizerBase

from amrsd_jax.records import Prompts
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.tasks.base import Task


def evaluate(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    sample: Callable[[Iterable[Request]], Iterator[Completion]],
    *,
    temperature: float,
    top_k: int,
    top_p: float,
) -> dict[str, float]:
    """One sampled and one greedy answer per problem, through one stream of requests.

    Returns:
      sampled, greedy: shares of problems answered correctly, with 95 % Wilson intervals as `_low` and `_high`;
      length: mean tokens of a sampled answer; truncated: share that hit the limit; n: problems.
    """
    pairs = list(zip(prompts.problems, prompts.tokens, strict=True))
    sampled = dict(temperature=temperature, top_k=top_k, top_p=top_p)

    def requests():
        for mode, settings in (("sampled", sampled), ("greedy", {"temperature": 0.0})):
            for i, (problem, tokens) in enumerate(pairs):
                yield Request(tokens, row=i, tag=(mode, problem), **settings)

    correct = {"sampled": 0, "greedy": 0}
    length = truncated = 0
    for completion in sample(requests()):
        mode, problem = completion.request.tag
        correct[mode] += task.verify(problem, tokenizer.decode(completion.tokens, skip_special_tokens=True)).correct
        if mode == "sampled":
            length += len(completion.tokens)
            truncated += completion.finish_reason == "length"
    n = len(pairs)
    results = {}
    for mode, count in correct.items():
        low, high = wilson(count, n)
        results |= {mode: count / n, f"{mode}_low": low, f"{mode}_high": high}
    return results | {"length": length / n, "truncated": truncated / n, "n": n}


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); z = 1.96 for 95 %."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
