"""Signals: a command ends where it is, a run at its next step, and nobody's wish to ignore a signal is overruled."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Final, Self

from stoker.core.errors import InterruptedRunError

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def signal_self(number: int) -> None:
    """Act as if one of `SIGNALS` had come to this process; any other number is passed over. From any thread."""
    if number in SIGNALS:
        os.kill(os.getpid(), number)


class _Watch:
    """A context in which SIGINT, SIGTERM and SIGHUP come to `_take`; `received` is the first.

    Outside the main thread nothing is watched: Python delivers signals only there. What this process was started to
    ignore (`nohup`, a job in the background) stays ignored.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            watched = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._take) for number in watched}
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        raise NotImplementedError

    def note(self, number: int) -> None:
        """Remember the first signal, here and in the contexts around this one."""
        self.received = self.received or number
        around = getattr(self._before.get(number), "__self__", None)
        if isinstance(around, _Watch):
            around.note(number)

    @property
    def name(self) -> str:
        """Return the received signal's name, empty when none came."""
        return signal.Signals(self.received).name if self.received else ""

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class SignalWatch(_Watch):
    """A context in which the first SIGINT, SIGTERM or SIGHUP is only noted, in `received`.

    The second raises InterruptedRunError wherever the main thread is.
    """

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.received:
            raise InterruptedRunError(
                "stopped at once by a second signal", remedy="the logs were kept", signal_number=number
            )
        self.note(number)


class SignalStop(_Watch):
    """A context in which the first SIGINT, SIGTERM or SIGHUP raises InterruptedRunError wherever the main thread is.

    The second is passed over, for what was begun is being tidied up; a third raises again. `received` is the first
    that came, to this context or to one inside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def _take(self, number: int, _: FrameType | None) -> None:
        self.note(number)
        self._taken += 1
        if self._taken != 2:
            raise InterruptedRunError(f"stopped by {signal.Signals(number).name}", signal_number=number)
