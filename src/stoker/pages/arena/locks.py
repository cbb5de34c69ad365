"""The robust lock: one owner among all processes, and whoever comes after a killed owner is told."""

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from stoker.core.errors import UnavailableError
from stoker.pages.errors import PagesError

LOCK_BYTES: Final = 64
_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ERROR_CHECK: Final = 2
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
