"""Page-aligned memory that writers stage in: a fixed number of buffers, each used anew once nobody looks at it.

A store may keep what it was handed for longer than the call: an object store's client sends parts behind our back and
copies nothing. So a buffer is free when no view of it is alive any more, which its mapping's references tell; nobody
has to give it back, and the memory is bounded whoever holds it.
"""

import mmap
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np

from stoker.core import clock
from stoker.core.errors import StokerError, UsageError
from stoker.core.units import MiB, format_bytes

ACQUIRE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.001
_HUGE_BYTES: Final = 2 * MiB


class Buffers:
    """At most `count` buffers of `size_bytes` each. Safe from several threads."""

    def __init__(self, count: int, size_bytes: int) -> None:
        """Raises UsageError for fewer than two buffers, or a size that is no multiple of a page."""
        if count < 2 or size_bytes <= 0 or size_bytes % mmap.PAGESIZE:
            raise UsageError(
                "buffers of a checkpoint are no good",
                expected=f"at least 2, each a multiple of {mmap.PAGESIZE} bytes",
                got=f"{count} of {size_bytes} bytes",
            )
        self.count, self.size_bytes = count, size_bytes
        self._blocks: list[mmap.mmap] = []
        self._changed = threading.Condition()

    @property
    def allocated_bytes(self) -> int:
        """Return the memory held now."""
        return len(self._blocks) * self.size_bytes

    def warm(self, size_bytes: int) -> None:
        """Map and touch as many buffers as content of `size_bytes` can fill."""
        with self._changed:
            while len(self._blocks) < self.count and self.allocated_bytes < size_bytes:
                block = _map(self.size_bytes)
                np.frombuffer(block, np.uint8)[:: mmap.PAGESIZE] = 0
                self._blocks.append(block)

    def acquire(
        self, *, timeout_seconds: float = ACQUIRE_SECONDS, given_up: Callable[[], bool] = lambda: False
    ) -> memoryview | None:
        """Return a buffer that is the caller's as long as a view of it is alive; None once `given_up` says so.

        Raises StokerError when none came free in time.
        """
        deadline_ns = clock.monotonic_ns() + round(timeout_seconds * 1e9)
        with self._changed:
            while not given_up():
                for place in range(len(self._blocks)):
                    # One reference from the list, one for the call: every view that is alive holds one more.
                    if sys.getrefcount(self._blocks[place]) <= _IDLE_REFERENCES:
                        return memoryview(self._blocks[place])
                if len(self._blocks) < self.count:
                    self._blocks.append(_map(self.size_bytes))
                    return memoryview(self._blocks[-1])
                if clock.monotonic_ns() > deadline_ns:
                    raise StokerError(
                        f"no buffer of {format_bytes(self.size_bytes)} came free within {timeout_seconds:g} s",
                        got=f"{self.count} in use by the store",
                        remedy="give more of them (--write-buffers)",
                    )
                self._changed.wait(_LOOK_SECONDS)
        return None

    def nudge(self) -> None:
        """Tell whoever waits that a buffer may have come free."""
        with self._changed:
            self._changed.notify_all()


def _map(size_bytes: int) -> mmap.mmap:
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size_bytes >= _HUGE_BYTES:
        with suppress(OSError):  # a kernel built without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _idle_references() -> int:
    """Return what the interpreter counts for a mapping in a list that nothing looks at."""
    blocks = [mmap.mmap(-1, mmap.PAGESIZE)]
    return sys.getrefcount(blocks[0])


_IDLE_REFERENCES: Final = _idle_references()
