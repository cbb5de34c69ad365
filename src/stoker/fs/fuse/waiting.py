"""Locks: taken at once or not at all by the metadata; who waits asks again here, with growing pauses.

A lock that this mount gives back wakes those who wait in it at once; one that another client gives back is noticed at
the next try, 50 ms later at most.
"""

import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from stoker.core.errors import StokerError
from stoker.fs.client.client import Client
from stoker.fs.meta.calls import FindLock, SetLock
from stoker.fs.meta.faults import MetaError

_PAUSE_SECONDS: Final = 0.002
_PAUSE_SECONDS_MAX: Final = 0.05
_EARLY_MAX: Final = 1024
Answered = Callable[[int, int], None]


class Wait:
    """A request that waits for a lock, and whom it waits for."""

    __slots__ = ("blocker", "due", "pause", "request", "unique")

    def __init__(self, unique: int, request: SetLock, now: float) -> None:
        self.unique = unique
        self.request = request
        self.pause = _PAUSE_SECONDS
        self.due = now + self.pause
        self.blocker = 0


class Locks:
    """Takes and gives back locks in the client's session. `answer` tells the kernel the errno, 0 for success.

    Who gets a lock must see what its last holder wrote: before the answer, `renew` has the kernel drop the pages of a
    file. That may wait for pages that are being read, so a thread does it that serves no requests.
    """

    def __init__(
        self,
        client: Client,
        answer: Answered,
        renew: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._answer = answer
        self._renew = renew
        self._renewals: list[tuple[int, int]] = []
        self._clock = clock
        self._waits: dict[int, Wait] = {}
        self._interrupted_early: OrderedDict[int, None] = OrderedDict()
        self._ranged: dict[tuple[int, int], int] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    # -- at once

    def take(self, request: SetLock, pid: int) -> None:
        """Take, change or give back a lock. Raises MetaError: EAGAIN when another stands in the way."""
        if request.exclusive is not None and not request.whole:
            with self._changed:
                self._ranged[request.ino, request.owner] = pid
        self._client.ask(request)
        if request.exclusive is not True:
            self.wake()

    def drop_ranges(self, ino: int, owner: int) -> None:
        """Give back the locks of fcntl that a process has on a file, as POSIX demands when it closes it."""
        with self._changed:
            if self._ranged.pop((ino, owner), None) is None:
                return
        try:
            self._client.ask(SetLock(ino, owner, None))
        finally:
            self.wake()

    def pid_of(self, ino: int, owner: int) -> int:
        """Return the process that an owner of this mount's session is; 0 for one that is not known."""
        return self._ranged.get((ino, owner), 0)

    def answer_renewed(self, unique: int, ino: int) -> None:
        """Answer a request that was granted, once the kernel has dropped the pages of the file."""
        with self._changed:
            self._renewals.append((unique, ino))
            self._begin()

    # -- waiting

    def wait(self, unique: int, request: SetLock, pid: int) -> bool:
        """Take a lock, or wait for it; tell whether it was taken at once.

        Raises MetaError: EDEADLK when who holds it waits, over others of this mount, for who asks.
        """
        try:
            self.take(request, pid)
            return True
        except MetaError as error:
            if error.errno != errno.EAGAIN:
                raise
        waiting = Wait(unique, request, self._clock())
        self._look_who(waiting)
        with self._changed:
            if self._interrupted_early.pop(unique, 0) is None:
                raise MetaError("waiting for a lock was interrupted", errno=errno.EINTR)
            self._waits[unique] = waiting
            self._begin()
        return False

    def _begin(self) -> None:
        """Have the thread look at what there is to do, and start it at first; the mutex is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stoker-fuse-locks", daemon=True)
            self._thread.start()
        self._changed.notify()

    def interrupt(self, unique: int) -> None:
        """Hear that whoever sent a request does not want to wait for it any longer."""
        with self._changed:
            found = self._waits.pop(unique, None)
            if found is None:
                # It may be about to wait, or it is no lock at all: then it is answered soon anyway.
                self._interrupted_early[unique] = None
                if len(self._interrupted_early) > _EARLY_MAX:
                    self._interrupted_early.popitem(last=False)
                return
        self._answer(unique, errno.EINTR)

    def wake(self) -> None:
        """Let those who wait try again now."""
        if not self._waits:
            return
        with self._changed:
            for waiting in self._waits.values():
                waiting.due, waiting.pause = 0.0, _PAUSE_SECONDS
            self._changed.notify()

    def stop(self) -> None:
        """End the waiting: who waits is told so."""
        with self._changed:
            self._stopped = True
            left, self._waits = list(self._waits), {}
            self._changed.notify()
        for unique in left:
            self._answer(unique, errno.EINTR)

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            renewals, due = work
            for unique, ino in renewals:
                self._renew(ino)
                self._answer(unique, 0)
            for waiting in due:
                self._try(waiting)

    def _next_work(self) -> tuple[list[tuple[int, int]], list[Wait]] | None:
        """Wait until something is due; None when it is over."""
        with self._changed:
            while not self._stopped:
                now = self._clock()
                due = [waiting for waiting in self._waits.values() if waiting.due <= now]
                if due or self._renewals:
                    renewals, self._renewals = self._renewals, []
                    return renewals, due
                first = min((waiting.due for waiting in self._waits.values()), default=None)
                self._changed.wait(None if first is None else first - now)
        return None

    def _try(self, waiting: Wait) -> None:
        number = 0
        try:
            self._client.ask(waiting.request)
        except MetaError as error:
            number = error.errno
            if number == errno.EAGAIN:
                number = self._still_waiting(waiting)
        except StokerError:
            number = errno.EIO
        if number == errno.EAGAIN:
            waiting.pause = min(2 * waiting.pause, _PAUSE_SECONDS_MAX)
            waiting.due = self._clock() + waiting.pause
            return
        with self._changed:
            wanted = self._waits.pop(waiting.unique, None) is not None
        if wanted:
            if not number:
                self._renew(waiting.request.ino)
            self._answer(waiting.unique, number)
        elif not number:
            self._give_back(waiting.request)

    def _still_waiting(self, waiting: Wait) -> int:
        try:
            self._look_who(waiting)
        except MetaError as error:
            return error.errno
        return errno.EAGAIN

    def _give_back(self, request: SetLock) -> None:
        """Give back a lock that came when nobody waited for it any longer."""
        back = SetLock(request.ino, request.owner, None, request.start, request.end, request.whole)
        try:
            self._client.ask(back)
        except StokerError:
            return  # the session is lost, and the lock with it

    def _look_who(self, waiting: Wait) -> None:
        """Note who is in the way. Raises MetaError (EDEADLK) when they wait for each other, all in this mount."""
        want = waiting.request
        if want.whole or want.exclusive is None:
            return
        question = FindLock(want.ino, want.owner, want.exclusive, want.start, want.end)
        held = self._client.ask(question).held
        ours = held is not None and held.session == self._client.session.number
        waiting.blocker = held.owner if held is not None and ours else 0
        with self._changed:
            blockers = {other.request.owner: other.blocker for other in self._waits.values()}
        blockers[want.owner] = waiting.blocker
        place, seen = waiting.blocker, set[int]()
        while place and place not in seen:
            if place == want.owner:
                raise MetaError("locks wait for each other (EDEADLK)", errno=errno.EDEADLK)
            seen.add(place)
            place = blockers.get(place, 0)
