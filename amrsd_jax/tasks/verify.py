"""Verifies completions and packs them into rollouts: text, verdicts and rewards, and arrays padded to fixed shapes."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from amrsd_jax import processes
from amrsd_jax.policy.tokenizer import Tokenizer, token_texts
from amrsd_jax.records import Completion, Problem, Rollouts, Verdict
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.thoughts import CLOSE, OPEN, inside_thought

HEADER = 16  # tokens at the end of a prompt that hold the header of the reply; Qwen3's has 7
THREADS = min(os.cpu_count() or 1, 8) + 1  # verifier threads; one more than processors, since some wait for a worker


def verify(
    task: Task,
    tokenizer: Tokenizer,
    completions: Sequence[Completion],
    *,
    prompt_length: int,
    response_length: int,
    stop: Sequence[str] = (),
) -> Rollouts:
    """Verifies completions and returns them as rollouts, in the same order. Several processes share the verification.

    Args:
      task: provides the verifier and the names of `Rollouts.extras`.
      tokenizer: decodes the responses.
      completions: each request's tag is its problem.
      prompt_length, response_length: P and T, padded widths.
      stop: see `judged`.
    """
    problems = tuple(c.request.tag for c in completions)
    texts = tuple(tokenizer.decode(c.tokens, skip_special_tokens=True) for c in completions)
    prompts = tuple(c.request.prompt for c in completions)

    def judge(*row) -> dict:
        return dataclasses.asdict(judged(task, tokenizer, *row, stop=stop))

    fields = processes.map_rows(judge, prompts, problems, texts, threads=THREADS)
    verdicts = tuple(
        Verdict(**one | {"spans": {name: tuple(span) for name, span in one["spans"].items()}}) for one in fields
    )
    tokens = [c.tokens.tolist() for c in completions]
    return Rollouts(
        problems=problems,
        text=texts,
        verdicts=verdicts,
        finish_reason=tuple(c.finish_reason for c in completions),
        prompt=pad([c.request.prompt for c in completions], prompt_length, np.int32),
        prompt_length=np.array([len(c.request.prompt) for c in completions], np.int32),
        response=pad([c.tokens for c in completions], response_length, np.int32),
        mask=pad([np.ones(len(c.tokens)) for c in completions], response_length, np.float32),
        sampler_logprobs=pad([c.logprobs for c in completions], response_length, np.float32),
        reward=np.array([v.reward for v in verdicts], np.float32),
        first_error=token_spans(
            tokenizer,
            tokens,
            [
                None if verdict.correct or only_thinks(tokenizer, prompt, text) else task.first_error(problem, text)
                for prompt, problem, text, verdict in zip(prompts, problems, texts, verdicts, strict=True)
            ],
        ),
        extras=extras(task, tokenizer, tokens, verdicts),
    )


def judged(
    task: Task, tokenizer: Tokenizer, prompt: Sequence[int], problem: Problem, text: str, *, stop: Sequence[str] = ()
) -> Verdict:
    """Returns the task's verdict on a response.

    What precedes the string that ended a response is judged, without `Question 2:`, which could be read as an answer. It is
    judged with the string where that closes a tag, as `</answer>` does, or where it has no answer, or the same one, with it.

    Some chat templates open a thought at the end of the prompt. A response that never closes it is a thought to its end, which
    the verifier sees by an opening tag before it; the verdict then has no spans, since nothing is in the reply.

    Args:
      stop: strings that end a response.
    """
    if ends := [text.index(string) for string in stop if string in text and not string.startswith("</")]:
        before = _judged(task, tokenizer, prompt, problem, text[: min(ends)])
        if before.format_ok:
            return before
        whole = _judged(task, tokenizer, prompt, problem, text)
        return before if before.parsed not in (None, whole.parsed) else whole
    return _judged(task, tokenizer, prompt, problem, text)


def _judged(task: Task, tokenizer: Tokenizer, prompt: Sequence[int], problem: Problem, text: str) -> Verdict:
    if only_thinks(tokenizer, prompt, text):
        return _encodable(dataclasses.replace(task.verify(problem, OPEN + text), spans={}))
    return _encodable(task.verify(problem, text))


def only_thinks(tokenizer: Tokenizer, prompt: Sequence[int], text: str) -> bool:
    """Returns whether a prompt opens a thought that the response never closes."""
    return CLOSE not in text and inside_thought(tokenizer.decode(list(prompt[-HEADER:])))


def _encodable(verdict: Verdict) -> Verdict:
    """Returns a verdict whose texts can be written as UTF-8: a response may name half of a surrogate pair, as JSON can."""
    texts = {
        name: text.encode("utf-8", "replace").decode()
        for name, text in (("message", verdict.message), ("parsed", verdict.parsed))
        if text is not None and not text.isascii()
    }
    return dataclasses.replace(verdict, **texts) if texts else verdict


def extras(
    task: Task, tokenizer: Tokenizer, tokens: Sequence[list[int]], verdicts: Sequence[Verdict]
) -> dict[str, np.ndarray]:
    """Returns the arrays of `Rollouts.extras`, with exactly the names that the task declares.

    Args:
      tokens: of each response.
      verdicts: on each response.

    Returns:
      for each name of `task.spans` token indices [start, end), int32 [N, 2], -1 where a verdict has no such span; for each
      name of `task.scores` float32 [N], nan where a verdict has no such score.
    """
    spans = {name: token_spans(tokenizer, tokens, [v.spans.get(name) for v in verdicts]) for name in task.spans}
    return spans | {name: np.array([v.scores.get(name, np.nan) for v in verdicts], np.float32) for name in task.scores}


def pad(rows: Sequence, width: int, dtype) -> np.ndarray:
    """Stacks rows of different lengths into one array [N, width], padded with zeros on the right."""
    padded = np.zeros((len(rows), width), dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def token_spans(
    tokenizer: Tokenizer, tokens: Sequence[list[int]], spans: Sequence[tuple[int, int] | None]
) -> Integer[np.ndarray, "N 2"]:
    """Applies `token_span` to every row."""
    rows = [token_span(tokenizer, *row) for row in zip(tokens, spans, strict=True)]
    return np.array(rows, np.int32).reshape(-1, 2)


def token_span(tokenizer: Tokenizer, tokens: list[int], span: tuple[int, int] | None) -> tuple[int, int]:
    """Converts a span of characters to token indices [start, end); (-1, -1) for None and for a span behind the last token.

    The characters are those of the text without special tokens, but for one at its end, whose place is just behind the text.
    """
    if span is None:
        return -1, -1
    hidden = [token for token in set(tokens[:-1]) if not tokenizer.decode([token], skip_special_tokens=True)]
    shown = np.append(~np.isin(tokens[:-1], hidden), True)[: len(tokens)]
    ends = np.cumsum([len(piece) for piece in token_texts(tokenizer, tokens)] * shown)
    start, last = np.searchsorted(ends, span[0], side="right"), np.searchsorted(ends, span[1], side="left")
    return (int(start), int(min(last + 1, len(tokens)))) if start < len(tokens) else (-1, -1)
