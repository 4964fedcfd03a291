"""Measures the time of a step: seconds per phase, and a timeline of phases and of the sampler's slots.

All times are the host's. A phase ends when its results are on the host; device work that is still queued then counts in the
phase that waits for it.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from amrsd_jax.records import Completion, Request
from amrsd_jax.sampling import Sampler

BINS = 200  # intervals of a step over which busy slots are counted, so that every timeline has the same size


class Clock:
    """Measures seconds per phase of the current step and of the run, and the timeline of the current step.

    Attributes:
      step, total: seconds by phase.
    """

    def __init__(self, total: dict[str, float] | None = None):
        self.total = dict(total or {})
        self._restart()

    def _restart(self) -> None:
        self.step: dict[str, float] = {}
        self._begin = time.perf_counter()
        self._phases: list[tuple[str, float, float]] = []  # name, begin, end
        self._beside: list[tuple[str, float, float]] = []
        self._rows: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the body of a `with` statement, also when it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self._phases.append((name, begin, end))
            self.step[name] = self.step.get(name, 0.0) + end - begin
            self.total[name] = self.total.get(name, 0.0) + end - begin

    @contextlib.contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Measures host work inside a phase, for the timeline only; its seconds count in the phase."""
        begin = time.perf_counter()
        yield
        self._beside.append((name, begin, time.perf_counter()))

    def row(self, kind: str, completion: Completion) -> None:
        """Records when a row of that kind ("rollouts" or "reflections") had a slot."""
        self._rows[kind].append((completion.began, completion.ended))

    def watched(self, kind: str, sampler: Sampler) -> Sampler:
        """Returns a sampler that also records when its rows had a slot."""

        def sample(requests: Iterable[Request]) -> Iterator[Completion]:
            for completion in sampler(requests):
                self.row(kind, completion)
                yield completion

        return sample

    def timeline(self, slots: int) -> dict:
        """Returns the timeline of the current step so far, in seconds from its start.

        Args:
          slots: number of the rollout sampler's slots.

        Returns:
          seconds: until the last phase ended.
          phases, beside: [name, begin, end] each.
          slots: as given.
          busy: by kind of row, the mean number of slots with such a row, in each of BINS equal intervals of the step.
        """
        seconds = max((end for _, _, end in self._phases), default=self._begin) - self._begin
        edges = np.linspace(0, seconds, BINS + 1)

        def busy(rows: list[tuple[float, float]]) -> list[float]:
            began, ended = np.array(rows).T[:, :, None] - self._begin
            overlap = np.clip(np.minimum(ended, edges[1:]) - np.maximum(began, edges[:-1]), 0, None)
            return np.round(overlap.sum(axis=0) * BINS / seconds, 2).tolist()

        def spans(intervals: list[tuple[str, float, float]]) -> list[list]:
            return [
                [name, round(begin - self._begin, 4), round(end - self._begin, 4)] for name, begin, end in intervals
            ]

        return {
            "seconds": round(seconds, 4),
            "phases": spans(self._phases),
            "beside": spans(self._beside),
            "slots": slots,
            "busy": {kind: busy(rows) for kind, rows in self._rows.items()},
        }

    def lap(self) -> dict[str, float]:
        """Ends a step, begins the next, and returns the seconds per phase of the one that ended."""
        lap = self.step
        self._restart()
        return lap
