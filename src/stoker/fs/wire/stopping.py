"""How a server that runs in the foreground is told to stop: by a signal, which is no failure."""

import signal
import threading
from types import FrameType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopWish:
    """A context in which SIGTERM, SIGINT and SIGHUP set `wanted`; for the main thread.

    What this process was started to ignore (`nohup`, a job in the background) stays ignored.
    """

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._before: dict[int, Any] = {}

    def wanted(self) -> bool:
        """Tell whether a signal came."""
        return self._wanted.is_set()

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted.set()

    def __enter__(self) -> Self:
        watched = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._take) for number in watched}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
