"""Group sync: whoever comes while a sync runs shares the next one. No thread, no timer; and locks by shard."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from stoker.core.errors import StokerError, TransientError


class _Ticket:
    """One who waits: settled by another's sync, or woken to sync for all who wait."""

    __slots__ = ("done", "error", "leads", "wake")

    def __init__(self) -> None:
        self.done = False
        self.leads = False
        self.error: StokerError | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupSync:
    """Shares calls of `sync`, which makes durable what was written before it was called, or raises StokerError."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._waiting: deque[_Ticket] = deque()
        self._mutex = threading.Lock()
        self._busy = False
        self.syncs = 0
        self.waits = 0

    def wait(self) -> None:
        """Return when a sync that began after this call is over. Raises what that sync raises."""
        ticket = _Ticket()
        with self._mutex:
            self.waits += 1
            self._waiting.append(ticket)
            leads, self._busy = not self._busy, True
        if not leads:
            try:
                ticket.wake.acquire()
            except BaseException:
                self._abandon(ticket)
                raise
        if not ticket.done:
            self._lead()
        if ticket.error is not None:
            raise ticket.error

    def _abandon(self, ticket: _Ticket) -> None:
        """Take out a ticket whose thread was interrupted; when it had been woken to lead, wake another."""
        with self._mutex:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                if ticket.leads:
                    self._wake_next()

    def _wake_next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0].leads = True
            self._waiting[0].wake.release()

    def _lead(self) -> None:
        """Sync for those who wait, oneself first among them, then wake who leads next, then those who are served."""
        with self._mutex:
            tickets = list(self._waiting)
            self._waiting.clear()
        error: StokerError | None = TransientError("sync was interrupted")
        try:
            self._sync()
            error = None
        except StokerError as failed:
            error = failed
        finally:
            with self._mutex:
                self.syncs += 1
                self._wake_next()
            for ticket in tickets:
                ticket.done, ticket.error = True, error
            for ticket in tickets[1:]:
                ticket.wake.release()


class KeyedLocks:
    """A lock for each key that is in use."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """Hold the lock of a key; nobody may hold another one meanwhile, but for `hold_all`."""
        with self._mutex:
            lock, users = self._locks.get(key, (None, 0))
            lock = lock or threading.Lock()
            self._locks[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._mutex:
                _, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)

    @contextmanager
    def hold_all(self, keys: Sequence[Hashable]) -> Iterator[None]:
        """Hold the locks of keys, which come in order and once each."""
        with ExitStack() as held:
            for key in keys:
                held.enter_context(self.hold(key))
            yield
