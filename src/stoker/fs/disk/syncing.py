"""Group sync: whoever comes while a sync runs shares the next one. No thread, no timer; and locks by shard."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from stoker.core.errors import StokerError, TransientError
from stoker.core.turns import Turns, Waiter


class _Waiter(Waiter):
    """One who waits for a sync, and what that raised."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        super().__init__()
        self.error: StokerError | None = None


class GroupSync:
    """Shares calls of `sync`, which makes durable what was written before it was called, or raises StokerError."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._turns: Turns[_Waiter] = Turns()
        self._mutex = threading.Lock()  # of what is counted
        self.syncs = 0
        self.waits = 0

    def wait(self) -> None:
        """Return when a sync that began after this call is over. Raises what that sync raises."""
        waiter = _Waiter()
        with self._mutex:
            self.waits += 1
        if self._turns.come(waiter):
            self._lead()
        if waiter.error is not None:
            raise waiter.error

    def _lead(self) -> None:
        """Sync for those who wait, oneself first among them, then wake who leads next, then those who are served."""
        taken = self._turns.take()
        error: StokerError | None = TransientError("sync was interrupted")
        try:
            self._sync()
            error = None
        except StokerError as failed:
            error = failed
        finally:
            with self._mutex:
                self.syncs += 1
            self._turns.pass_on()
            for waiter in taken:
                waiter.error = error
            self._turns.serve(taken)


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
