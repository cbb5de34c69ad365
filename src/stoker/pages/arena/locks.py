"""The robust lock: one owner among all processes, and whoever comes after a killed owner is told."""

import ctypes
import errno
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from stoker.core.clock import monotonic_ns, sleep
from stoker.core.errors import UnavailableError
from stoker.pages.errors import PagesError

LOCK_BYTES: Final = 64
_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ERROR_CHECK: Final = 2
_PROBE_NS: Final = 2_000_000_000
_libc: Final = ctypes.CDLL(None, use_errno=False)


class AlreadyHeldError(PagesError):
    """This thread has the lock already."""


class RobustLock:
    """A POSIX robust mutex in shared memory, `LOCK_BYTES` long, of whichever process maps it.

    `mend` is called with the lock held when the last owner died in it; only then is the lock sound again.
    Waiting drops the GIL. Taking it twice in one thread is an error.
    """

    def __init__(self, address: int, mend: Callable[[], None]) -> None:
        self._mutex = ctypes.c_void_p(address)
        self._mend = mend

    @staticmethod
    def initialise(address: int) -> None:
        """Make the lock; once, before anybody maps it. Raises UnavailableError where there are no robust mutexes."""
        attributes = ctypes.create_string_buffer(64)
        failed = _libc.pthread_mutexattr_init(attributes)
        failed |= _libc.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED)
        failed |= _libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
        failed |= _libc.pthread_mutexattr_settype(attributes, _ERROR_CHECK)
        failed |= _libc.pthread_mutex_init(ctypes.c_void_p(address), attributes)
        _libc.pthread_mutexattr_destroy(attributes)
        if failed:
            raise UnavailableError("this system has no robust locks between processes", got=f"error {failed}")

    def acquire(self) -> None:
        """Wait for the lock; mends what a dead owner left. Raises AlreadyHeldError when this thread has it already."""
        code = _libc.pthread_mutex_lock(self._mutex)
        if code == errno.EOWNERDEAD:
            self.mend_held()
        elif code == errno.EDEADLK:
            raise AlreadyHeldError("store is being written by this thread already: no commit begins inside another")
        elif code:
            raise PagesError("lock of the store cannot be taken", got=f"error {code}")

    def mend_held(self) -> None:
        """Make sound what the last owner left when it died; the lock is held, and still is afterwards.

        What mending raises is raised, with the lock given back.
        """
        try:
            self._mend()
        except BaseException:
            _libc.pthread_mutex_consistent(self._mutex)
            _libc.pthread_mutex_unlock(self._mutex)
            raise
        _libc.pthread_mutex_consistent(self._mutex)

    def release(self) -> None:
        """Give the lock back."""
        _libc.pthread_mutex_unlock(self._mutex)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the length of a `with` block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


def probe_robust_locks() -> str:
    """Return why processes cannot share a lock that outlives its owner here, empty where they can: tried once.

    A thread takes a lock in shared memory and ends; whoever comes next must be told, and go on.
    """
    told: list[bool] = []
    with mmap.mmap(-1, LOCK_BYTES) as memory:
        first = ctypes.c_char.from_buffer(memory)
        try:
            address = ctypes.addressof(first)
            RobustLock.initialise(address)
            lock = RobustLock(address, lambda: told.append(True))
            owner = threading.Thread(target=lock.acquire)
            owner.start()
            owner.join()
            if not _taken(lock):
                return "a lock whose owner died is never free again"
            lock.release()
        except (UnavailableError, PagesError) as error:
            return str(error)
        finally:
            del first
    return "" if told else "nobody is told that the owner of a lock died"


def _taken(lock: RobustLock) -> bool:
    """Take the lock within two seconds: Python's thread is joined a moment before the system's thread is gone, and a
    plain wait would never end where nobody is told of dead owners."""
    deadline_ns = monotonic_ns() + _PROBE_NS
    while (code := _libc.pthread_mutex_trylock(lock._mutex)) == errno.EBUSY and monotonic_ns() < deadline_ns:
        sleep(0.001)
    if code == errno.EOWNERDEAD:
        lock.mend_held()
    return code in (0, errno.EOWNERDEAD)
