"""What the sampler is asked for and what it answers, and the queue in between."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from amrsd_jax.sampling.transitions import Layout


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to be answered `count` times.

    Attributes:
      prompt: token ids.
      row: number of its first rollout, which keys its randomness; the others follow. Unique within a call and stream.
      count: rollouts that share the prefill.
      stream: which of the call's keys its randomness comes from.
      new_tokens: longest response; None is the layout's.
      temperature, top_k, top_p: see `warpers.sample`; 0 and 1 keep everything.
      tag: handed back with the completions.
    """

    prompt: Sequence[int]
    row: int
    count: int = 1
    stream: int = 0
    new_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    tag: Any = None

    @property
    def single(self) -> bool:
        """Whether one rollout is asked for: such requests are admitted by a program without room for groups."""
        return self.count == 1

    def limit(self, layout: Layout) -> int:
        """Most new tokens of its responses."""
        return layout.new_tokens if self.new_tokens is None else self.new_tokens


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished rollout; arrays are of its own length [t], the stop token included.

    Attributes:
      request, index: which request, and which of its `count` rollouts.
      tokens: sampled ids.
      logp: log-probability under the distribution each was drawn from (temperature and truncation).
      logp_plain: log-probability at temperature 1, nothing truncated.
      finish_reason: "stop" or "length".
      began, ended: when it had its slot, in the host's seconds (`time.perf_counter`). The host looks now and then: of the
        time between two looks a row has the share of the decode steps that it was in.
    """

    request: Request
    index: int
    tokens: Integer[np.ndarray, " t"]
    logp: Float[np.ndarray, " t"]
    logp_plain: Float[np.ndarray, " t"]
    finish_reason: str
    began: float = 0.0
    ended: float = 0.0


class Queue:
    """Requests not yet admitted: those of an iterable, read as they are needed, and then those added later."""

    def __init__(self, requests: Iterable[Request] = ()):
        self._source, self._added = iter(requests), collections.deque()
        self._next: Request | None = None

    def add(self, request: Request) -> None:
        """Puts a request behind all others."""
        self._added.append(request)

    @property
    def ahead(self) -> Request | None:
        """The next request, None if there is none now."""
        if self._next is None:
            self._next = next(self._source, None) or (self._added.popleft() if self._added else None)
        return self._next

    def waiting(self) -> bool:
        return self.ahead is not None

    def take(self, free: int, layout: Layout) -> list[Request]:
        """Requests that are prefilled together and fit into the free slots: with groups alone, or without."""
        batch, longest = [], 0
        while self.ahead is not None:
            _check(self.ahead, layout)
            longest = max(longest, len(self.ahead.prompt))
            unlike = batch and batch[0].single != self.ahead.single
            if unlike or self.ahead.count > free or len(batch) >= layout.together(longest):
                break
            free -= self.ahead.count
            batch.append(self.ahead)
            self._next = None
        return batch


def _check(request: Request, layout: Layout) -> None:
    length, limit = len(request.prompt), request.limit(layout)
    if not 0 < limit <= layout.new_tokens:
        raise ValueError(f"request of row {request.row}: {limit} new tokens; expected 1 to {layout.new_tokens}")
    if not 0 < length <= layout.length - limit:
        raise ValueError(
            f"request of row {request.row}: prompt of {length} tokens; expected 1 to {layout.length - limit}"
        )
    if not 0 < request.count <= layout.group:
        raise ValueError(f"request of row {request.row}: count {request.count}; expected 1 to {layout.group}")
