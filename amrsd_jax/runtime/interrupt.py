"""Ctrl-C and SIGTERM ask a run to save and stop; asking twice stops it at once."""

import signal
import threading


class Interrupt:
    """Within its body, `requested` is the name of the signal that asked to stop, or None.

    Only the main thread can be asked: Python lets no other one handle signals.
    """

    requested: str | None = None

    def __enter__(self):
        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
