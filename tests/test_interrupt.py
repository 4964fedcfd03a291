"""Signals: the first is noted, the second interrupts."""

import os
import signal

import pytest

from amrsd_jax.interrupt import Interrupt, Interrupted, check


def test_a_second_signal_interrupts_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
