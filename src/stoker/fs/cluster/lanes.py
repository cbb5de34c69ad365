"""Where calls to holders run: side by side in threads, or one after the other where time is a test's affair.

Whoever begins calls waits for the first that is done, or for a while. What was begun is never stopped: it ends by
itself, and nobody need wait for it.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, Protocol

_THREADS: Final = 64


class Task(Protocol):
    """A call that was begun."""

    def done(self) -> bool:
        """Tell whether it has returned or raised."""

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised; only of one that is done."""


class Awaited(ABC):
    """A task that no lane runs: its answer comes from elsewhere into `future`, or is too late at `until`."""

    @property
    @abstractmethod
    def future(self) -> "Future[Any]":
        """Where it comes."""

    @property
    @abstractmethod
    def until(self) -> float:
        """When it is too late, by the lanes' clock."""


class Lanes(Protocol):
    """Runs calls beside each other."""

    def begin(self, call: Callable[[], Any]) -> Task:
        """Begin a call."""

    def wait(self, tasks: Collection[Task], seconds: float | None) -> None:
        """Return when one of the tasks is done, or so many seconds have passed."""

    def clock(self) -> float:
        """Return seconds of a clock that never goes back."""

    def close(self) -> None:
        """Take no more calls; what was begun ends by itself."""


class ThreadLanes:
    """Calls in threads of their own."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shards")

    def begin(self, call: Callable[[], Any]) -> Task:
        """Begin a call in a thread, when one is free."""
        return self._pool.submit(call)

    def wait(self, tasks: Collection[Task], seconds: float | None) -> None:
        """Return when one of the tasks is done, or so many seconds have passed."""
        futures: list[Future[Any]] = []
        until = math.inf if seconds is None else self.clock() + seconds
        for task in tasks:
            if isinstance(task, Future):
                futures.append(task)
            elif isinstance(task, Awaited):
                futures.append(task.future)
                until = min(until, task.until)
        wait(futures, None if until == math.inf else max(0.0, until - self.clock()), FIRST_COMPLETED)

    def clock(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    def close(self) -> None:
        """Take no more calls, and wait for those that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Finished:
    """A call that ran when it was begun."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: Exception | None = None
        try:
            self._value = call()
        except Exception as error:
            self._error = error

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class InlineLanes:
    """Calls run at once, in the thread that begins them: for single-threaded simulators, and disks of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def begin(self, call: Callable[[], Any]) -> Task:
        """Run a call."""
        return _Finished(call)

    def wait(self, tasks: Collection[Task], seconds: float | None) -> None:
        """Return: everything is done."""

    def clock(self) -> float:
        """Return what the clock says."""
        return self._clock()

    def close(self) -> None:
        """Do nothing: nothing runs."""
