"""Arrays that tell what was written to them, by plain NumPy, torch, C or the kernel itself."""

import mmap
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stoker.core.errors import UsageError
from stoker.pages.capture.runs import Changes, collect_changes
from stoker.pages.capture.tracking import Probe, TrackedMemory, Tracking, bytes_of
from stoker.pages.capture.userfault import probe_userfault

TRACK_BYTES_MIN: Final = 512 * 1024
"""Smaller edits are compared whole: that takes less than asking the kernel (measured in benchmarks/pages/capture)."""


class Tracked:
    """An array whose changes can be collected: its tracking, and the shadow it is compared with.

    Raises UsageError for one of Python objects, or memory that is read-only or strided.
    """

    def __init__(self, array: NDArray[Any], probe: Probe) -> None:
        if array.dtype.hasobject:
            raise UsageError("an array of Python objects cannot be tracked", got=str(array.dtype))
        self.array: Final = array
        self._bytes = bytes_of(array)
        self._memory = TrackedMemory(array, probe=probe)
        self._memory.start()
        # only now: what is written before the copy is in the shadow, and what comes later is noticed
        self._shadow = self._bytes.copy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def tracking(self) -> Tracking:
        """How writes are noticed."""
        return self._memory.tracking

    def collect(self, *, gap_bytes: int = 0) -> Changes:
        """Return the bytes changed since the last call; one that was written with its own value has not changed.

        Runs with at most `gap_bytes` equal bytes between them become one. Raises UsageError after `close`.
        """
        return collect_changes(self._bytes, self._shadow, self._memory.dirty_ranges(), gap_bytes=gap_bytes)

    def close(self) -> None:
        """Stop tracking; the array stays as it is. May be repeated."""
        self._memory.stop()


class TrackedArray(Tracked):
    """A new array of zeros in pages of its own, tracked from the start; `array` is plain NumPy."""

    def __init__(self, shape: int | Sequence[int], dtype: DTypeLike, *, probe: Probe = probe_userfault) -> None:
        kind = np.dtype(dtype)
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        size_bytes = int(np.prod(dims, dtype=np.int64)) * kind.itemsize
        # the mapping lives as long as the array that looks into it
        pages = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        super().__init__(np.ndarray(dims, kind, pages), probe)


def track(array: NDArray[Any], *, probe: Probe = probe_userfault) -> Tracked:
    """Track a writable C-contiguous array that exists; it is kept alive until `close`.

    Raises UsageError for one that is read-only, strided or of Python objects. What another mapping of the same shared
    memory writes is seen only where the tracking is `compare`, or where this mapping wrote the same page.
    """
    return Tracked(array, probe)


class TrackedEdit:
    """An edit of a private copy: at the end it tells the runs that differ from the base.

    `buffer` is writable, `base` uint8 of its size, and both are equal when the edit begins. Buffers below
    `track_bytes_min` are compared whole. Raises UsageError for two sizes, or a buffer that is read-only or strided.
    """

    def __init__(
        self,
        buffer: Any,
        base: NDArray[np.uint8],
        *,
        probe: Probe = probe_userfault,
        track_bytes_min: int = TRACK_BYTES_MIN,
    ) -> None:
        self._bytes = bytes_of(buffer)
        self._base = base.reshape(-1).view(np.uint8)
        if self._bytes.size != self._base.size:
            raise UsageError(
                "an edit and its base differ in size",
                expected=f"{self._base.size} bytes",
                got=f"{self._bytes.size} bytes",
            )
        small = self._bytes.size < track_bytes_min
        self._memory = TrackedMemory(self._bytes, probe=_small if small else probe)
        self._memory.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def tracking(self) -> Tracking:
        """How writes are noticed."""
        return self._memory.tracking

    def runs(self, *, gap_bytes: int = 0) -> Changes:
        """Return all that differs from the base so far; iterating it yields (offset, bytes).

        May be asked again while the edit goes on. Raises UsageError after `close`.
        """
        dirty = self._memory.dirty_ranges(reset=False)
        return collect_changes(self._bytes, self._base, dirty, gap_bytes=gap_bytes, update=False)

    def close(self) -> None:
        """End the edit; the buffer may then be released. May be repeated."""
        self._memory.stop()


def _small() -> str:
    return "small memory is compared faster than it is tracked"
