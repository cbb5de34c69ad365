"""Turns: of many threads that want the same done, one does it for all who wait. No thread of its own, no timer.

Whoever comes while nobody is at it leads. Who comes later waits, and the first of those who waited leads next: so what
was asked for while a disk was busy costs one more wait for it, however much that is.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar


class Waiter:
    """One thread that waits: served by another, or woken to lead. Subclasses hold what it wants and what came of it."""

    __slots__ = ("_leads", "_wake", "done")

    def __init__(self) -> None:
        self.done = False
        self._leads = False
        self._wake = threading.Lock()  # released when it is served, or is to lead
        self._wake.acquire()


W = TypeVar("W", bound=Waiter)


def _one(_: Waiter) -> int:
    return 1


class Turns(Generic[W]):
    """Who waits, and whether somebody leads. A leader takes who waits, passes the lead on, and serves those it took."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[W] = deque()
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many wait to be taken."""
        return len(self._waiting)

    def come(self, waiter: W) -> bool:
        """Wait; return True when the waiter has to lead, False when it was served."""
        with self._mutex:
            self._waiting.append(waiter)
            waiter._leads, self._busy = not self._busy, True
            leads = waiter._leads
        if not leads:
            try:
                waiter._wake.acquire()
            except BaseException:
                self.leave(waiter)
                raise
        return not waiter.done

    def leave(self, waiter: W) -> None:
        """Take out a waiter whose thread was interrupted; when it was to lead, another leads instead."""
        with self._mutex:
            if waiter not in self._waiting:
                return
            self._waiting.remove(waiter)
            if waiter._leads:
                self._wake_next()

    def take(self, most: int = sys.maxsize, weight: Callable[[W], int] = _one) -> list[W]:
        """Take who waits, in their order: the leader, and others as long as all together weigh `most` at most."""
        with self._mutex:
            taken = [self._waiting.popleft()]
            held = weight(taken[0])
            while self._waiting and held + weight(self._waiting[0]) <= most:
                taken.append(self._waiting.popleft())
                held += weight(taken[-1])
        return taken

    def pass_on(self) -> None:
        """Let who waits longest lead next."""
        with self._mutex:
            self._wake_next()

    def _wake_next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0]._leads = True
            self._waiting[0]._wake.release()

    @staticmethod
    def serve(taken: Sequence[W]) -> None:
        """Let those who were taken, the leader first among them, go on: what came of it is in them."""
        for waiter in taken:
            waiter.done = True
        for waiter in taken[1:]:
            waiter._wake.release()
