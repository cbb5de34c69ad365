"""The same work for many files on a bounded number of threads."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

TICK_SECONDS: Final = 0.25


class Crew(Generic[S, T]):
    """Threads that do `work` for every task; `stop` is set when no more is wanted, and `work` may look at it."""

    def __init__(self, work: Callable[[S], T], *, threads: int, stop: threading.Event) -> None:
        assert threads >= 1
        self._work = work
        self._threads = threads
        self._stop = stop
        self._lock = threading.Lock()
        self._results: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()

    def run(self, tasks: Iterator[S], *, on_result: Callable[[T], None], on_tick: Callable[[], None]) -> None:
        """Do the work; `on_result` and, after each result and every 0.25 s, `on_tick` run on the caller's thread.

        The first error stops the crew and is raised; so does an exception from the caller's side (a signal). When
        this returns or raises, no thread is left, and `on_result` was told all that was finished.
        """
        crew = [
            threading.Thread(target=self._member, args=(tasks,), name=f"crew-{number}")
            for number in range(self._threads)
        ]
        try:
            for thread in crew:
                thread.start()
            self._gather(on_result, on_tick)
        finally:
            self._stop.set()
            for thread in crew:
                if thread.ident is not None:
                    thread.join()
            while not self._results.empty():
                late = self._results.get()
                if isinstance(late, tuple):
                    on_result(late[0])

    def _member(self, tasks: Iterator[S]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    task = next(tasks, None)
                if task is None:
                    break
                self._results.put((self._work(task),))
        except BaseException as error:  # raised on the caller's thread
            self._results.put(error)
        finally:
            self._results.put(None)

    def _gather(self, on_result: Callable[[T], None], on_tick: Callable[[], None]) -> None:
        running = self._threads
        while running:
            try:
                result = self._results.get(timeout=TICK_SECONDS)
            except queue.Empty:
                on_tick()
                continue
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                on_result(result[0])
                on_tick()
