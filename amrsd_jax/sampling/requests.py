"""Defines the queue of requests that wait for free slots."""

import collections
from collections.abc import Iterable

from amrsd_jax.records import Request
from amrsd_jax.sampling.transitions import SamplerConfig


class RequestQueue:
    """Requests that are not yet admitted: first those of an iterable, read only when needed, then those added later."""

    def __init__(self, requests: Iterable[Request] = ()):
        self._source, self._added = iter(requests), collections.deque()
        self._next: Request | None = None

    def add(self, request: Request) -> None:
        """Appends a request."""
        self._added.append(request)

    @property
    def next(self) -> Request | None:
        """The request that is admitted next; None if the queue is empty now."""
        if self._next is None:
            self._next = next(self._source, None) or (self._added.popleft() if self._added else None)
        return self._next

    def take(self, free: int, config: SamplerConfig) -> list[Request]:
        """Removes and returns requests that fit into `free` slots and can be prefilled together.

        A batch holds either requests for one rollout each or requests for several: the two kinds have separate programs,
        because the former need no room for groups.

        Raises:
          ValueError: a request is empty or does not fit into the sampler's shape.
        """
        batch, longest = [], 0
        while (request := self.next) is not None:
            _check(request, config)
            longest = max(longest, len(request.prompt))
            mixed = batch and (batch[0].count == 1) != (request.count == 1)
            if mixed or request.count > free or len(batch) >= config.prompts_per_admission(longest):
                break
            free -= request.count
            batch.append(request)
            self._next = None
        return batch


def _check(request: Request, config: SamplerConfig) -> None:
    length, limit = len(request.prompt), request.limit(config.new_tokens)
    for value, most, name in (
        (limit, config.new_tokens, "{} new tokens"),
        (length, config.length - limit, "prompt of {} tokens"),
        (request.count, config.group, "count {}"),
    ):
        if not 0 < value <= most:
            raise ValueError(f"request of row {request.row}: {name.format(value)}; expected 1 to {most}")
