"""Ctrl-C and SIGTERM ask a run to save and stop; asking twice stops it at once."""

import signal


class Interrupt:
    """Within its body, `requested` is the name of the signal that asked to stop, or None."""

    requested: str | None = None

    def __enter__(self):
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
