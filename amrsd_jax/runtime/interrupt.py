"""Makes Ctrl-C and SIGTERM save a checkpoint and stop the run after the current step; a second signal stops it at once."""

import signal
import threading

from amrsd_jax.processes import allgather


class Interrupt:
    """Records signals to stop, as a context manager, on all processes, so that all stop after the same step.

    Outside the main thread no signal is handled, because Python does not allow it.

    Attributes:
      requested: name of a signal that any process had received when all of them last called `poll`; None if there was none.
    """

    requested: str | None = None
    _received: str | None = None

    def __enter__(self):
        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Updates `requested`; all processes must call this together."""
        self.requested = next(filter(None, allgather(self._received)), None)

    def _note(self, number, _):
        if self._received:
            raise KeyboardInterrupt
        self._received = signal.Signals(number).name
