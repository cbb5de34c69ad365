"""Which pages of plain writable memory were written, without hooks in the writer.

| kind | how | cost |
|---|---|---|
| `userfaultfd` | the kernel notes the first write to a page | about a microsecond per page first written |
| `compare` | all memory counts as written, its owner compares it with a shadow | a pass over the memory |

Limits of `userfaultfd`: it follows one mapping, so what comes through another mapping of the same file or in another
process is not seen, nor what a device writes into pages that were pinned before. Only anonymous and shared memory
(memfd, tmpfs) can be followed. A forked child goes on with `compare`.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.pages.capture.userfault import PAGE_BYTES, Userfault, probe_userfault

Kind = Literal["userfaultfd", "compare"]
Probe = Callable[[], str]
"""Returns why the kernel cannot track, empty where it can."""
_NO_PAGES: Final = np.zeros((0, 2), np.int64)


class Tracking(msgspec.Struct, frozen=True):
    """How writes are noticed, and why not otherwise (`reason`, empty for userfaultfd)."""

    kind: Kind
    reason: str = ""


def tracking_kind(probe: Probe = probe_userfault) -> Tracking:
    """Return how this machine can notice writes."""
    reason = probe()
    return Tracking("compare", reason) if reason else Tracking("userfaultfd")


def bytes_of(memory: Any) -> NDArray[np.uint8]:
    """Return the bytes of a writable contiguous buffer as uint8, shape (n,), sharing them; raises UsageError."""
    view = memoryview(memory)
    if view.readonly or not view.c_contiguous:
        raise UsageError(
            "memory cannot be tracked",
            expected="writable and C-contiguous",
            got="read-only" if view.readonly else "strided",
        )
    if not view.nbytes:
        return np.zeros(0, np.uint8)
    array = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
    return array.reshape(-1).view(np.uint8)


class TrackedMemory:
    """Memory whose written parts can be asked for. Between `start` and `stop` it holds two descriptors at most.

    Only pages that lie whole inside the memory are given to the kernel: the first and the last bytes, which may share a
    page with somebody else's, always count as written. Safe from many threads once started.
    """

    def __init__(self, memory: Any, *, probe: Probe = probe_userfault) -> None:
        """Follow a writable contiguous buffer or array; it is kept alive."""
        self._bytes = bytes_of(memory)
        self._probe = probe
        self._fault: Userfault | None = None
        self._started = False
        self._kind = Tracking("compare", "not started")
        self.address: Final = int(self._bytes.ctypes.data)
        self.size_bytes: Final = self._bytes.size
        self._first = -(-self.address // PAGE_BYTES) * PAGE_BYTES
        self._end = (self.address + self.size_bytes) // PAGE_BYTES * PAGE_BYTES

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def tracking(self) -> Tracking:
        """How writes are noticed now; a fork or a refusal for this very memory changes it."""
        if self._fault is not None and not self._fault.usable:
            return Tracking("compare", "the process was forked")
        return self._kind

    def start(self) -> None:
        """Begin: what is written from here on is noticed. Raises UsageError when begun already."""
        if self._started:
            raise UsageError("memory is tracked already", remedy="stop it first")
        self._kind = tracking_kind(self._probe)
        if self._kind.kind == "userfaultfd":
            self._kind = self._protect()
        self._started = True

    def stop(self) -> None:
        """End, and release what the kernel holds for it; may be repeated."""
        if self._fault is not None:
            self._fault.close()
        self._fault = None
        self._started = False
        self._kind = Tracking("compare", "not started")

    def dirty_ranges(self, *, reset: bool = True) -> NDArray[np.int64]:
        """Return what may have been written since the last reset: (offset, length) in bytes, ascending, shape (n, 2).

        Reading and resetting are one step for the kernel: a write in between is told now or next time.
        Raises UsageError when tracking has not begun.
        """
        if not self._started:
            raise UsageError("memory is not tracked", remedy="call start()")
        fault = self._fault
        if fault is None or not fault.usable:
            whole = [(0, self.size_bytes)] if self.size_bytes else []
            return np.array(whole, np.int64).reshape(-1, 2)
        inner = fault.written(self._first, self._end - self._first, reset=reset)
        edges = [(self.address, self._first)], [(self._end, self.address + self.size_bytes)]
        spans = np.concatenate((edges[0], inner, edges[1]))
        return _joined(spans[spans[:, 1] > spans[:, 0]] - self.address)

    def _protect(self) -> Tracking:
        if self._end <= self._first:
            return Tracking("compare", "the memory holds no whole page")
        fault = None
        try:
            fault = Userfault()
            fault.protect(self._first, self._end - self._first)
        except OSError as error:
            if fault is not None:
                fault.close()
            return Tracking("compare", f"the kernel does not track this memory: {error.strerror or error}")
        self._fault = fault
        return Tracking("userfaultfd")


def _joined(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (start, end) spans as (offset, length), those that touch made one."""
    if not len(spans):
        return _NO_PAGES
    apart = np.flatnonzero(spans[1:, 0] > spans[:-1, 1])
    starts = spans[np.concatenate(([0], apart + 1)), 0]
    ends = spans[np.concatenate((apart, [len(spans) - 1])), 1]
    return np.stack((starts, ends - starts), axis=1)
