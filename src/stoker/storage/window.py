"""A window of calls that are under way in threads, bounded in number and in bytes."""

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from stoker.core.errors import StokerError

Asked = TypeVar("Asked")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls, and how many bytes, may be under way or waiting to be taken."""

    count_max: int
    bytes_max: int


class _Stopped(StokerError):
    """The caller stopped asking while a worker waited for room."""


class Budget:
    """Bytes under way or waiting to be taken. What is larger than the whole budget goes when nothing else does."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._next_index = -1
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def stopped(self) -> bool:
        """Tell whether nothing more is to be started."""
        return self._stopped

    def try_charge(self, count_bytes: int) -> bool:
        """Take bytes if they fit; called by the thread that hands out requests."""
        with self._changed:
            return self._take(count_bytes, index=None)

    def charge(self, count_bytes: int, *, index: int) -> None:
        """Take bytes, waiting for room. The request whose turn it is to be yielded never waits: it would for ever."""
        with self._changed:
            while not self._take(count_bytes, index=index):
                if self._stopped:
                    raise _Stopped("reading was stopped")
                self._changed.wait()

    def _take(self, count_bytes: int, *, index: int | None) -> bool:
        fits = self._used_bytes == 0 or self._used_bytes + count_bytes <= self._limit_bytes
        if fits or index == self._next_index:
            self._used_bytes += count_bytes
            return True
        return False

    def release(self, count_bytes: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._used_bytes -= count_bytes
            self._changed.notify_all()

    def favour(self, index: int) -> None:
        """Tell which request must be yielded next, where the order matters."""
        with self._changed:
            self._next_index = index
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake every waiting worker with an error."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Window(Generic[Asked, Done]):
    """Runs `work(request, charge)` in threads for one stream of requests.

    `size` tells a request's bytes beforehand; where it says None, `work` calls `charge` once it knows, and may wait
    there for room. `work` does not raise for a failure that belongs into its result. `count` tells for how many of the
    bounds' calls a request stands.
    """

    def __init__(
        self,
        bounds: Bounds,
        work: Callable[[Asked, Callable[[int], None]], Done],
        size: Callable[[Asked], int | None],
        count: Callable[[Asked], int] = lambda _request: 1,
    ) -> None:
        self._bounds = bounds
        self._work = work
        self._size = size
        self._count = count
        self._budget = Budget(bounds.bytes_max)
        self._todo: SimpleQueue[tuple[int, Asked] | None] = SimpleQueue()
        self._finished: SimpleQueue[tuple[int, Done | BaseException]] = SimpleQueue()
        self._early: dict[int, Done] = {}
        self._threads: list[threading.Thread] = []
        self._charged_bytes: dict[int, int] = {}
        self._held: list[Asked] = []
        self._counts: dict[int, int] = {}
        self._taken = 0
        self._started = 0
        self._yielded = 0

    def run(self, requests: Iterator[Asked], *, ordered: bool) -> Generator[Done, None, None]:
        """Yield what `work` returns for each request; used once."""
        try:
            while True:
                self._start_more(requests)
                if self._started == self._yielded:
                    return
                index, done = self._next_in_order() if ordered else self._next_finished()
                self._yielded += 1
                self._taken -= self._counts.pop(index)
                self._budget.release(self._charged_bytes.pop(index, 0))
                yield done
        finally:
            self._stop()

    def _start_more(self, requests: Iterator[Asked]) -> None:
        """Start requests as far as the bounds allow; one that does not fit yet is held."""
        while self._taken < self._bounds.count_max:
            request = self._held.pop() if self._held else next(requests, None)
            if request is None:
                return
            count = self._count(request)
            if self._taken and self._taken + count > self._bounds.count_max:
                self._held.append(request)
                return
            size_bytes = self._size(request)
            if size_bytes is not None and not self._budget.try_charge(size_bytes):
                self._held.append(request)
                return
            self._counts[self._started] = count
            self._taken += count
            if size_bytes is not None:
                self._charged_bytes[self._started] = size_bytes
            if len(self._threads) <= self._started - self._yielded:
                self._add_thread()
            self._todo.put((self._started, request))
            self._started += 1

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="stoker-submit", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (task := self._todo.get()) is not None and not self._budget.stopped:
            index, request = task
            try:
                self._finished.put((index, self._work(request, self._charger(index))))
            except BaseException as error:  # the waiting side raises it: nobody looks at this thread
                self._finished.put((index, error))

    def _charger(self, index: int) -> Callable[[int], None]:
        def charge(count_bytes: int) -> None:
            self._budget.charge(count_bytes, index=index)
            self._charged_bytes[index] = count_bytes

        return charge

    def _next_finished(self) -> tuple[int, Done]:
        index, done = self._finished.get()
        if isinstance(done, BaseException):
            raise done
        return index, done

    def _next_in_order(self) -> tuple[int, Done]:
        self._budget.favour(self._yielded)
        while self._yielded not in self._early:
            index, done = self._next_finished()
            self._early[index] = done
        return self._yielded, self._early.pop(self._yielded)

    def _stop(self) -> None:
        """Let the calls that have begun end, and start no more."""
        self._budget.stop()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
