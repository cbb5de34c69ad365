"""Notes to the masters of slices that need a repair, as a client finds them: on a thread that nobody waits for."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from stoker.core.errors import StokerError
from stoker.fs.care.messages import SLICES_AT_ONCE_MAX
from stoker.fs.cluster import Short
from stoker.fs.meta.slices import Slice

_KEPT_MAX: Final = 10_000
_GATHER_SECONDS: Final = 0.2
_PARTING_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 60.0
"""A slice that was noted is not noted again for so long: a degraded one may be read a thousand times meanwhile."""


class Notes:
    """Takes what a store tells, and sends it. What cannot be sent is kept for the next time, the oldest goes first."""

    def __init__(self, send: Callable[[tuple[Slice, ...]], object], clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: OrderedDict[tuple[int, int], Slice] = OrderedDict()
        self._sent: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stoker-short-notes")
        self._thread.start()

    def __call__(self, short: Short) -> None:
        """Take a slice that needs a repair."""
        key = (short.slice.id, short.slice.generation)
        with self._lock:
            if self._clock() - self._sent.get(key, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
                return
            self._waiting[key] = short.slice
            while len(self._waiting) > _KEPT_MAX:
                self._waiting.popitem(last=False)
        self._wake.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_GATHER_SECONDS)
            self._wake.clear()
            self._send_all()

    def _send_all(self) -> None:
        while True:
            with self._lock:
                batch = dict(list(self._waiting.items())[:SLICES_AT_ONCE_MAX])
            if not batch:
                return
            try:
                self._send(tuple(batch.values()))
            except StokerError:
                return  # sent with the next note; a pass over the inventory finds them anyway
            with self._lock:
                now = self._clock()
                for key in batch:
                    self._waiting.pop(key, None)
                    self._sent[key] = now
                while len(self._sent) > _KEPT_MAX:
                    self._sent.popitem(last=False)

    def close(self) -> None:
        """Send what is there, and end; twice is harmless."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_PARTING_SECONDS)
