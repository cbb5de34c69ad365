"""The robust lock: one owner among all processes, and whoever comes after a killed owner is told."""

import ctypes
import errno
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import UnavailableError
from stoker.pages.errors import PagesError, Timeout

LOCK_BYTES: Final = 64
_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ERROR_CHECK: Final = 2
_SLICE_NS: Final = 200_000_000
"""A wait is cut into slices, between which Python sees signals."""
_PROBE_SECONDS: Final = 2.0
_libc: Final = ctypes.CDLL(None, use_errno=False)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class AlreadyHeldError(PagesError):
    """This thread has the lock already."""


class RobustLock:
    """A POSIX robust mutex in shared memory, `LOCK_BYTES` long, of whichever process maps it.

    `mend` is called with the lock held when the last owner died in it; only then is the lock sound again. `unsound`
    tells whether an earlier mending broke off: then it is called too. Waiting drops the GIL. Taking it twice in one
    thread is an error.
    """

    def __init__(self, address: int, mend: Callable[[], None], unsound: Callable[[], bool] = bool) -> None:
        self._mutex = ctypes.c_void_p(address)
        self._mend = mend
        self._unsound = unsound

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

    def acquire(self, timeout_seconds: float | None = None) -> None:
        """Wait for the lock; mends what a dead owner left.

        Raises AlreadyHeldError when this thread has it already, Timeout, and what mending raises.
        """
        code = _libc.pthread_mutex_trylock(self._mutex)
        if code == errno.EBUSY:
            code = self._wait(timeout_seconds)
        if code == errno.EOWNERDEAD or (not code and self._unsound()):
            self.mend_held()
        elif code == errno.ETIMEDOUT:
            raise Timeout(
                "store is being written by a process that does not go on",
                expected=f"an end within {timeout_seconds:g} s",
                remedy="let that process go on, or end it: then its commit is finished or undone for it",
            )
        elif code == errno.EDEADLK:
            raise AlreadyHeldError("store is being written by this thread already: no commit begins inside another")
        elif code:
            raise PagesError("lock of the store cannot be taken", got=f"error {code}")

    def _wait(self, timeout_seconds: float | None) -> int:
        """Wait in slices, and return what the last one gave."""
        end_ns = None if timeout_seconds is None else monotonic_ns() + round(timeout_seconds * 1e9)
        while True:
            left_ns = _SLICE_NS if end_ns is None else min(_SLICE_NS, end_ns - monotonic_ns())
            until = _Timespec(*divmod(wall_ns() + max(0, left_ns), 10**9))
            code = int(_libc.pthread_mutex_timedlock(self._mutex, ctypes.byref(until)))
            if code != errno.ETIMEDOUT or left_ns <= 0:
                return code

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
    def held(self, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the lock for the length of a `with` block. Raises as `acquire`."""
        self.acquire(timeout_seconds)
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
            # Python's thread is joined a moment before the system's thread is gone.
            lock.acquire(_PROBE_SECONDS)
            lock.release()
        except Timeout:
            return "a lock whose owner died is never free again"
        except (UnavailableError, PagesError) as error:
            return str(error)
        finally:
            del first
    return "" if told else "nobody is told that the owner of a lock died"
