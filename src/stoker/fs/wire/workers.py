"""A fixed number of threads that do what is put before them; more are started only as work waits."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

Work = Callable[[], None]
_log: Final = logging.getLogger("stoker.fs.wire")


class Workers:
    """Does work in up to `count` threads. How much may wait is bounded by who puts it here."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._ended = False

    def put(self, work: Work) -> None:
        """Have work done; after `end` nothing is done any more."""
        with self._lock:
            if self._ended:
                return
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._count:
                thread = threading.Thread(target=self._run, daemon=True, name=f"{self._name}-{len(self._threads)}")
                self._threads.append(thread)
                thread.start()
            self._work.put(work)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            try:
                work()
            except Exception:  # a thread less for every mistake would end in a server that only listens
                _log.exception("work failed")
            with self._lock:
                if self._work.empty():
                    self._idle += 1

    def end(self, within_seconds: float) -> None:
        """Have every thread end after what it does now, and wait so long for them; what nobody began is dropped."""
        with self._lock:
            self._ended = True
            for _ in self._threads:
                self._work.put(None)
        until = time.monotonic() + within_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
