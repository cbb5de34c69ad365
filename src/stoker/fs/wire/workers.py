"""A fixed number of threads that do what is put before them; more are started only as work waits."""

import queue
import threading
from collections.abc import Callable

Work = Callable[[], None]


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
            work()
            with self._lock:
                if self._work.empty():
                    self._idle += 1

    def end(self) -> None:
        """Have every thread end after what it does now, and wait for it; work that nobody began is dropped."""
        with self._lock:
            self._ended = True
            for _ in self._threads:
                self._work.put(None)
        for thread in self._threads:
            thread.join()
