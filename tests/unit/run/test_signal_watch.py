"""Signals as the conductor watches them."""

import os
import signal

import pytest

from stoker.bench.run.signals import SIGNALS, SignalWatch
from stoker.core.errors import InterruptedRunError


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_is_noted_and_the_second_raises(number: int) -> None:
    before = signal.getsignal(number)
    with SignalWatch() as watch:
        assert (watch.received, watch.name) == (0, "")
        send(number)
        assert (watch.received, watch.name) == (number, signal.Signals(number).name)
        with pytest.raises(InterruptedRunError) as raised:
            send(signal.SIGTERM)
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalWatch() as watch:
            send(signal.SIGHUP)
            assert watch.received == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
