"""Threads that wait for responses.

Blocking calls of the client from a few threads cost less CPU time than its calls for asyncio, which come back to the
event loop by way of a lock and a wake-up for each response (`python -m benchmarks.objects` shows both).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

T = TypeVar("T")

THREADS_MAX: Final = 256


class Crew:
    """Does jobs side by side; the caller's thread is one of the workers. Threads start when first needed."""

    def __init__(self, threads_max: int = THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._pool: ThreadPoolExecutor | None = None
        self._starting = threading.Lock()

    def run(self, work: Callable[[T], None], jobs: Sequence[T], *, at_once: int) -> None:
        """Call `work` for every job, at most `at_once` of them at a time; return when nothing runs any more.

        After an exception no further job is begun, those under way are waited for, and it is raised.
        """
        waiting = deque(jobs)

        def take() -> None:
            while True:
                try:
                    job = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(job)
                except BaseException:
                    waiting.clear()
                    raise

        helpers = [self._started().submit(take) for _ in range(min(at_once, len(jobs)) - 1)]
        try:
            take()
        finally:
            waiting.clear()
            wait([helper for helper in helpers if not helper.cancel()])
        for helper in helpers:
            if not helper.cancelled():
                helper.result()

    def _started(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads_max, thread_name_prefix="stoker-object")
            return self._pool

    def close(self) -> None:
        """End the threads; closing twice is harmless, and a later `run` starts new ones."""
        with self._starting:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
