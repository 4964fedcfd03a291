"""Stops a run on Ctrl-C or SIGTERM where the same command can continue it; a second signal interrupts it at once."""

import signal
import threading

from amrsd_jax.processes import allgather

_active: "Interrupt | None" = None  # signals belong to the process, and so does what handles them


class Interrupted(Exception):
    """A signal was received, and the work in progress was left; the message is the name of the signal."""


class Interrupt:
    """Records signals to stop, as a context manager, on all processes, so that all stop at the same point.

    Outside the main thread no signal is handled, because Python does not allow it.

    Attributes:
      requested: name of a signal that any process had received when all of them last called `poll`; None if there was none.
    """

    requested: str | None = None
    _received: str | None = None

    def __enter__(self):
        global _active
        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        self._outer, _active = _active, self
        return self

    def __exit__(self, *_):
        global _active
        _active = self._outer
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Updates `requested`; all processes must call this together."""
        self.requested = next(filter(None, allgather(self._received)), None)

    def _note(self, number, _):
        if self._received:
            raise KeyboardInterrupt
        self._received = signal.Signals(number).name


def check() -> None:
    """Raises Interrupted if a signal was received while an `Interrupt` is active. All processes must call this together.

    Work that takes long and leaves nothing behind unless it is finished calls this between its parts.
    """
    if _active is not None:
        _active.poll()
        if _active.requested:
            raise Interrupted(_active.requested)
