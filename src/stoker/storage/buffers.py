"""Page-aligned memory: what O_DIRECT wants, and what a loader reuses instead of allocating for every sample."""

import math
import mmap
import sys
import threading
from collections import defaultdict
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stoker.core import clock
from stoker.core.errors import StokerError, UsageError
from stoker.core.units import MiB, format_bytes

PAGE_BYTES: Final = mmap.PAGESIZE
ACQUIRE_SECONDS: Final = 300.0
_HUGE_BYTES: Final = 2 * MiB


def aligned_view(size_bytes: int) -> memoryview:
    """Return a zeroed, page-aligned, writable buffer of its own memory mapping, for buffers that live long."""
    if size_bytes <= 0:
        return memoryview(bytearray(0))
    return memoryview(_map(size_bytes))[:size_bytes]


def fresh_view(size_bytes: int) -> memoryview:
    """Return a page-aligned, writable buffer from the heap; its content is undefined.

    Cheaper than `aligned_view` for short-lived buffers: the heap gives back pages that are already mapped.
    """
    raw = np.empty(size_bytes + PAGE_BYTES, dtype=np.uint8)
    skip = -raw.ctypes.data % PAGE_BYTES
    return raw[skip : skip + size_bytes].data


def aligned_array(shape: int | tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """Return a zeroed array whose data begins on a page boundary."""
    kind = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else shape
    flat = np.frombuffer(aligned_view(math.prod(sizes) * kind.itemsize), dtype=kind)
    return flat.reshape(sizes)


def address_of(view: memoryview) -> int:
    """Return the address of a non-empty contiguous buffer, read-only ones too."""
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


class Lease:
    """A buffer on loan. `view` is the borrower's until `release`, and raises ValueError afterwards."""

    __slots__ = ("_block", "_pool", "view")

    def __init__(self, pool: "BufferPool", block: mmap.mmap, size_bytes: int) -> None:
        self._pool = pool
        self._block: mmap.mmap | None = block
        with memoryview(block) as whole:
            self.view = whole[:size_bytes]

    def release(self) -> None:
        """Give the buffer back; releasing twice is harmless.

        Arrays and slices of `view` that are still alive keep their bytes: such a buffer is not used again.
        """
        block, self._block = self._block, None
        if block is None:
            return
        try:
            self.view.release()
        except BufferError:  # an array still looks at it; the pool finds that
            self.view = memoryview(b"")
        self._pool._take_back(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class BufferPool:
    """Page-aligned buffers, reused, at most `limit_bytes` of them at once. Safe from many threads.

    Sizes are rounded up to a power of two below 1 MiB and to whole MiB above, so that a buffer finds a next user.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < PAGE_BYTES:
            raise UsageError("buffer pool is too small", expected=f"at least {PAGE_BYTES} bytes", got=str(limit_bytes))
        self.limit_bytes = limit_bytes
        self._free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
        self._allocated_bytes = 0
        self._changed = threading.Condition()
        self._idle_references = 0
        Lease(self, _map(PAGE_BYTES), 0).release()

    @property
    def allocated_bytes(self) -> int:
        """Return the memory held now, on loan or idle."""
        return self._allocated_bytes

    def acquire(self, size_bytes: int, *, timeout_seconds: float = ACQUIRE_SECONDS) -> Lease:
        """Lend a buffer of `size_bytes` with undefined content, waiting while the pool is used up.

        Raises UsageError when the pool could never hold it, StokerError when nothing came back in time.
        """
        capacity = _capacity(size_bytes)
        if capacity > self.limit_bytes:
            raise UsageError(
                "buffer is larger than its pool",
                expected=f"at most {format_bytes(self.limit_bytes)}",
                got=format_bytes(capacity),
            )
        deadline_ns = clock.monotonic_ns() + int(timeout_seconds * 1e9)
        with self._changed:
            while not self._make_room(capacity):
                left_seconds = (deadline_ns - clock.monotonic_ns()) / 1e9
                if left_seconds <= 0 or not self._changed.wait(left_seconds):
                    raise self._exhausted(capacity, timeout_seconds)
            block = self._free[capacity].pop() if self._free[capacity] else self._allocate(capacity)
        return Lease(self, block, size_bytes)

    def _make_room(self, capacity: int) -> bool:
        """Tell whether a block of `capacity` can be had now, dropping idle blocks of other sizes for it."""
        if self._free[capacity]:
            return True
        for idle in self._free.values():
            while idle and self._allocated_bytes + capacity > self.limit_bytes:
                self._allocated_bytes -= len(idle.pop())
        return self._allocated_bytes + capacity <= self.limit_bytes

    def _allocate(self, capacity: int) -> mmap.mmap:
        self._allocated_bytes += capacity
        return _map(capacity)

    def _exhausted(self, capacity: int, timeout_seconds: float) -> StokerError:
        return StokerError(
            f"no buffer of {format_bytes(capacity)} came free within {timeout_seconds:g} s",
            got=f"{format_bytes(self._allocated_bytes)} of {format_bytes(self.limit_bytes)} on loan",
            remedy="release leases sooner or enlarge the pool",
        )

    def _take_back(self, block: mmap.mmap) -> None:
        # Every view that is alive holds a reference to the mapping. How many an unseen one has here depends on the
        # interpreter; the lease that `__init__` releases at once tells.
        references = sys.getrefcount(block)
        with self._changed:
            if not self._idle_references:
                self._idle_references = references
            elif references > self._idle_references:
                self._allocated_bytes -= len(block)
            else:
                self._free[len(block)].append(block)
            self._changed.notify_all()


def _capacity(size_bytes: int) -> int:
    if size_bytes >= MiB:
        return -(-size_bytes // MiB) * MiB
    return max(PAGE_BYTES, 1 << max(size_bytes - 1, 0).bit_length())


def _map(size_bytes: int) -> mmap.mmap:
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size_bytes >= _HUGE_BYTES:
        # The first touch of a buffer costs more than filling it, page by page; huge pages halve that.
        with suppress(OSError):  # a kernel built without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
