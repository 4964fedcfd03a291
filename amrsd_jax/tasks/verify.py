"""From completions to rollouts: text, verdicts and rewards on the host, arrays padded to fixed shapes."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from amrsd_jax import processes
from amrsd_jax.policy.tokenizer import Tokenizer, token_texts
from amrsd_jax.records import Rollouts
from amrsd_jax.sampling import Completion
from amrsd_jax.tasks.base import Task, Verdict

THREADS = min(os.cpu_count() or 1, 8) + 1  # that judge: a slow verifier waits for a process of its own meanwhile


def verify(
    task: Task,
    tokenizer: Tokenizer,
    completions: Sequence[Completion],
    *,
    prompt_length: int,
    response_length: int,
) -> Rollouts:
    """Judges completions, in their order; each one's request carries its problem as tag. Of several processes each judges its
    share.

    Args:
      prompt_length, response_length: P and T, padded widths.
    """
    problems = tuple(c.request.tag for c in completions)
    texts = tuple(tokenizer.decode(c.tokens, skip_special_tokens=True) for c in completions)
    judged = processes.spread(lambda *row: dataclasses.asdict(task.verify(*row)), problems, texts, threads=THREADS)
    verdicts = tuple(Verdict(**fields) for fields in judged)
    return Rollouts(
        problems=problems,
        text=texts,
        verdicts=verdicts,
        finish_reason=tuple(c.finish_reason for c in completions),
        prompt=pad([c.request.prompt for c in completions], prompt_length, np.int32),
        prompt_length=np.array([len(c.request.prompt) for c in completions], np.int32),
        response=pad([c.tokens for c in completions], response_length, np.int32),
        mask=pad([np.ones(len(c.tokens)) for c in completions], response_length, np.float32),
        logp=pad([c.logp for c in completions], response_length, np.float32),
        logp_plain=pad([c.logp_plain for c in completions], response_length, np.float32),
        reward=np.array([v.reward for v in verdicts], np.float32),
        first_error=np.array(
            [
                (-1, -1) if v.correct else token_span(tokenizer, c.tokens.tolist(), task.first_error(p, t))
                for c, p, t, v in zip(completions, problems, texts, verdicts, strict=True)
            ],
            np.int32,
        ),
    )


def pad(rows: Sequence, width: int, dtype) -> np.ndarray:
    """Rows of different lengths as one right-padded array [N, width]."""
    padded = np.zeros((len(rows), width), dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def token_span(tokenizer: Tokenizer, tokens: list[int], span: tuple[int, int] | None) -> tuple[int, int]:
    """Indices [start, end) of the tokens that hold a span of characters; (-1, -1) without one, or beyond the last token."""
    if span is None:
        return -1, -1
    ends = np.cumsum([len(piece) for piece in token_texts(tokenizer, tokens)])
    start, last = np.searchsorted(ends, span[0], side="right"), np.searchsorted(ends, span[1], side="left")
    return (int(start), int(min(last + 1, len(tokens)))) if start < len(tokens) else (-1, -1)
