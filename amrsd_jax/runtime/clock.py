"""Where the time of a step goes: seconds per phase, and the step laid out in time with the sampler's slots.

All times are the host's. A phase ends when its results are on the host: what a device still has queued counts in the phase
that waits for it.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from amrsd_jax.reflection.contexts import Sampler
from amrsd_jax.sampling import Completion, Request

BINS = 200  # stretches of a step over which busy slots are counted: a timeline is as large, however long the step


class Clock:
    """Seconds per phase, of the current step and of the run; and when in the current step they were.

    Attributes:
      step, total: phase to seconds.
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
        """Times its body, also when it raises."""
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
        """Times host work inside a phase, for the timeline alone: its seconds are the phase's already."""
        begin = time.perf_counter()
        yield
        self._beside.append((name, begin, time.perf_counter()))

    def row(self, what: str, completion: Completion) -> None:
        """Notes when a row had a slot; `what` says what it is."""
        self._rows[what].append((completion.began, completion.ended))

    def watched(self, what: str, sampler: Sampler) -> Sampler:
        """A sampler whose rows are noted."""

        def sample(requests: Iterable[Request]) -> Iterator[Completion]:
            for completion in sampler(requests):
                self.row(what, completion)
                yield completion

        return sample

    def timeline(self, slots: int) -> dict:
        """The current step so far, in seconds from its start.

        Args:
          slots: that the sampler of rollouts has.

        Returns:
          seconds: until the last phase ended.
          phases, beside: [name, begin, end] each.
          slots: as given.
          busy: what the rows are to how many slots had one, the mean over each of BINS equal stretches of the step.
        """
        seconds = max((end for _, _, end in self._phases), default=self._begin) - self._begin
        edges = np.linspace(0, seconds, BINS + 1)

        def busy(rows: list[tuple[float, float]]) -> list[float]:
            began, ended = np.array(rows).T[:, :, None] - self._begin
            shared = np.clip(np.minimum(ended, edges[1:]) - np.maximum(began, edges[:-1]), 0, None)
            return np.round(shared.sum(axis=0) * BINS / seconds, 2).tolist()

        def spans(found: list[tuple[str, float, float]]) -> list[list]:
            return [[name, round(begin - self._begin, 4), round(end - self._begin, 4)] for name, begin, end in found]

        return {
            "seconds": round(seconds, 4),
            "phases": spans(self._phases),
            "beside": spans(self._beside),
            "slots": slots,
            "busy": {what: busy(rows) for what, rows in self._rows.items()},
        }

    def lap(self) -> dict[str, float]:
        """Seconds per phase since the last lap; a step ends and the next begins."""
        lap = self.step
        self._restart()
        return lap
