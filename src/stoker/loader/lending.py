"""Read buffers that come back by themselves: when the last array that looks into one is gone.

A buffer belongs to whoever holds a view of it, however long; so a batch that is kept is never overwritten. How many
bytes are on loan is not bounded here but where reading is admitted: what was handed over is the consumer's memory.
"""

import threading
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.units import KiB
from stoker.storage.buffers import address_of, aligned_view, fresh_view

_SMALL_BYTES: Final = 64 * KiB
_ROUND_BYTES: Final = 64 * KiB
_WASTE_RATIO_MAX: Final = 1.5
_SEARCH_MAX: Final = 32


class _Returned(deque[memoryview]):
    """Blocks on their way back; nobody waits for them once `closed`."""

    closed = False


class _Owner:
    """Keeps a block alive for the array made from it, and gives the block back when that array dies.

    NumPy keeps the object behind `__array_interface__` as the array's base. The array itself knows only the
    address, so by the time the owner goes nothing else refers to the block.
    """

    __slots__ = ("__array_interface__", "_block", "_returned")

    def __init__(self, block: memoryview, returned: _Returned) -> None:
        self._block = block
        self._returned = returned
        self.__array_interface__ = {
            "shape": (block.nbytes,),
            "typestr": "|u1",
            "data": (address_of(block), False),
            "version": 3,
        }

    def __del__(self) -> None:
        # Runs in any thread, even inside the lender's own lock when the collector strikes there: one atomic append.
        if not self._returned.closed:
            self._returned.append(self._block)


class Lender:
    """Page-aligned buffers for one loader. Blocks that came back are used again, up to `idle_bytes_max` of them.

    Small buffers are simply made anew: the heap does that as fast as a search would.
    """

    def __init__(self, idle_bytes_max: int) -> None:
        self.idle_bytes_max = idle_bytes_max
        self._returned = _Returned()
        self._idle: list[memoryview] = []
        self._idle_bytes = 0
        self._lock = threading.Lock()

    def lend(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return a flat, page-aligned, writable array of undefined content; it stays yours while you can see it."""
        if size_bytes < _SMALL_BYTES:
            return np.frombuffer(fresh_view(size_bytes), np.uint8)
        block = self._take(size_bytes)
        owned: NDArray[np.uint8] = np.asarray(_Owner(block, self._returned))
        return owned[:size_bytes]

    def _take(self, size_bytes: int) -> memoryview:
        with self._lock:
            self._tidy()
            best = -1
            for index in range(len(self._idle) - 1, max(-1, len(self._idle) - 1 - _SEARCH_MAX), -1):
                held_bytes = self._idle[index].nbytes
                if size_bytes <= held_bytes <= size_bytes * _WASTE_RATIO_MAX + _ROUND_BYTES and (
                    best < 0 or held_bytes < self._idle[best].nbytes
                ):
                    best = index
            if best >= 0:
                block = self._idle.pop(best)
                self._idle_bytes -= block.nbytes
                return block
        return aligned_view(-(-size_bytes // _ROUND_BYTES) * _ROUND_BYTES)

    def _tidy(self) -> None:
        """Move what came back to the idle blocks, and let the oldest go when they are too many."""
        while self._returned:
            self._idle.append(self._returned.popleft())
            self._idle_bytes += self._idle[-1].nbytes
        while self._idle_bytes > self.idle_bytes_max:
            self._idle_bytes -= self._idle.pop(0).nbytes

    @property
    def idle_bytes(self) -> int:
        """Return the memory held for a next use."""
        with self._lock:
            self._tidy()
            return self._idle_bytes

    def lend_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a C-ordered array of undefined content whose data begin on a page boundary."""
        count = 1
        for side in shape:
            count *= side
        return self.lend(count * dtype.itemsize).view(dtype).reshape(shape)

    def close(self) -> None:
        """Let go of all idle blocks; those on loan go when their last view does."""
        self._returned.closed = True
        with self._lock:
            self._returned.clear()
            self._idle.clear()
            self._idle_bytes = 0
