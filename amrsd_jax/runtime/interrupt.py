"""Ctrl-C and SIGTERM ask a run to save and stop; asking twice stops it at once."""

import signal
import threading

from amrsd_jax.processes import gather


class Interrupt:
    """Within its body, `requested` is the name of the signal that had asked this or any other process to stop when all of
    them last called `poll`, or None: they stop after the same step.

    Only the main thread can be asked: Python lets no other one handle signals.
    """

    requested: str | None = None
    _heard: str | None = None

    def __enter__(self):
        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> None:
        """Brings `requested` up to date."""
        self.requested = next(filter(None, gather(self._heard)), None)

    def _note(self, number, _):
        if self._heard:
            raise KeyboardInterrupt
        self._heard = signal.Signals(number).name
