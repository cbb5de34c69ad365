"""Bounds of memory: how many bytes may be under way, and buffers that are used again."""

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.units import KiB, MiB

_CLASS_BYTES_MIN: Final = 64 * KiB
_HUGE_BYTES: Final = 2 * MiB


def _mapped(size: int) -> mmap.mmap:
    """Return memory of its own, in huge pages where it is large and there are any: a fault for 2 MiB, not for 4 KiB."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_BYTES:
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Budget:
    """So many bytes may be taken at once. One that wants more than there is gets it when nobody else has any.

    Safe from many threads; those who wait are served as room comes, the small ones perhaps before a large one.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._taken_bytes = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    @property
    def taken_bytes(self) -> int:
        """Return how many bytes are taken."""
        return self._taken_bytes

    def take(self, count: int, within_seconds: float, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Take `count` bytes, waiting for them; False when they did not come in time or `given_up` became true."""
        with self._lock:
            if not self._has(count):
                self._waiting += 1
                self._changed.wait_for(lambda: given_up() or self._has(count), within_seconds)
                self._waiting -= 1
            if given_up() or not self._has(count):
                return False
            self._taken_bytes += count
            return True

    def _has(self, count: int) -> bool:
        return self._taken_bytes == 0 or self._taken_bytes + count <= self.total_bytes

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._taken_bytes -= count
            assert self._taken_bytes >= 0
            if self._waiting:
                self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait look whether they gave up."""
        with self._lock:
            self._changed.notify_all()


class BufferPool:
    """Lends buffers of at least the size that is wanted, and keeps some of those that come back for the next.

    Memory that was just given to the process costs a fault for each page; 4 MiB have a thousand of them. Each begins
    with a page, so that what was received can be written past the page cache.
    """

    def __init__(self, kept_bytes_max: int = 64 * MiB) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._kept_bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Return the memory that waits to be used again."""
        return self._kept_bytes

    def lend(self, count: int) -> mmap.mmap:
        """Return a buffer of `count` bytes or more, with anything in it."""
        size = max(_CLASS_BYTES_MIN, 1 << (count - 1).bit_length() if count else 0)
        with self._lock:
            free = self._free.get(size)
            if free:
                self._kept_bytes -= size
                return free.pop()
        return _mapped(size)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Take a buffer back. One that somebody still looks at is left to them instead of being written over."""
        with suppress(BufferError):
            buffer.resize(len(buffer))  # what is looked at cannot change its size
            with self._lock:
                if self._kept_bytes + len(buffer) <= self._kept_bytes_max:
                    self._kept_bytes += len(buffer)
                    self._free.setdefault(len(buffer), []).append(buffer)


class GivenBuffers:
    """Gives memory away for good, and takes it again when nobody looks at it any more.

    What is given is a memoryview, which keeps its memory referenced, and so does all that is made of it. However much
    is out, what comes back is used again; `kept_bytes_max` bounds what waits for that.
    """

    def __init__(self, kept_bytes_max: int = 64 * MiB) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._free: dict[int, deque[NDArray[Any]]] = {}

    @property
    def kept_bytes(self) -> int:
        """Return the memory that waits to be used again."""
        return sum(size * len(free) for size, free in list(self._free.items()))

    def give(self, count: int) -> memoryview:
        """Return memory of `count` bytes, with anything in it."""
        if count < _CLASS_BYTES_MIN:
            return memoryview(bytearray(count))
        size = 1 << (count - 1).bit_length()
        try:
            memory = self._free.setdefault(size, deque()).pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        shown = memory.view()
        weakref.finalize(shown, self._take_back, memory).atexit = False
        return shown.data[:count]

    def _take_back(self, memory: NDArray[Any]) -> None:
        """Keep memory that nobody looks at. Takes no lock: it may be called within any line of any thread."""
        if self.kept_bytes + len(memory) <= self._kept_bytes_max:
            self._free[len(memory)].append(memory)
