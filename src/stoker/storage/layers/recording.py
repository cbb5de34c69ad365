"""Counts what is done to a store and how long it takes: the true time to open apart from the time to move bytes."""

import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec

from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.histogram import Histogram
from stoker.storage.api import ObjectInfo, Reader, Store
from stoker.storage.layers.layer import Layer, ReaderLayer

T = TypeVar("T")

_FOLD_COUNT: Final = 4096


class OperationRow(msgspec.Struct, frozen=True):
    """One call: what, on which key, which bytes, when (monotonic), and the kind of error it ended in, if any."""

    operation: str
    key: str
    bytes: int
    started_ns: int
    ended_ns: int
    thread: int
    error: str = ""


class OperationStats(msgspec.Struct, frozen=True):
    """The sum over all calls of one operation; `histogram` is encoded, see core.histogram."""

    count: int
    errors: int
    bytes: int
    histogram: str


class _Tally:
    """The counts of one operation. Durations are folded into the histogram in batches, off the hot path."""

    def __init__(self) -> None:
        self.count = self.errors = self.bytes = 0
        self._pending_ns: list[int] = []
        self._histogram = Histogram()

    def add(self, row: OperationRow) -> None:
        self.count += 1
        self.errors += bool(row.error)
        self.bytes += row.bytes
        self._pending_ns.append(row.ended_ns - row.started_ns)
        if len(self._pending_ns) >= _FOLD_COUNT:
            self._fold()

    def _fold(self) -> None:
        self._histogram.record_many(self._pending_ns)
        self._pending_ns.clear()

    def stats(self) -> OperationStats:
        self._fold()
        return OperationStats(self.count, self.errors, self.bytes, self._histogram.encode())


class RecordingStore(Layer):
    """Counts every call; `log`, when given, gets a row for each, from whichever thread made it.

    Operations: open_read read put put_parts stat list delete rename. The duration of `list` is that of the whole
    listing, the caller's own work between two objects included.
    """

    def __init__(self, inner: Store, log: Callable[[OperationRow], None] | None = None) -> None:
        super().__init__(inner)
        self._log = log
        self._tallies: dict[str, _Tally] = {}
        self._counting = threading.Lock()

    def snapshot(self) -> dict[str, OperationStats]:
        """Return the sums so far, by operation."""
        with self._counting:
            return {name: tally.stats() for name, tally in sorted(self._tallies.items())}

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._counting:
            self._tallies.clear()

    def note(self, operation: str, key: str, started_ns: int, *, count_bytes: int = 0, error: str = "") -> None:
        """Count one call that ended now."""
        row = OperationRow(operation, key, count_bytes, started_ns, clock.monotonic_ns(), threading.get_ident(), error)
        with self._counting:
            tally = self._tallies.get(operation)
            if tally is None:
                tally = self._tallies.setdefault(operation, _Tally())
            tally.add(row)
        if self._log is not None:
            self._log(row)

    def timed(self, operation: str, key: str, action: Callable[[], T], count_bytes: Callable[[T], int]) -> T:
        """Return what `action` returns, counted whether it succeeds or not."""
        started_ns = clock.monotonic_ns()
        try:
            result = action()
        except BaseException as error:
            self.note(operation, key, started_ns, error=type(error).__name__)
            raise
        self.note(operation, key, started_ns, count_bytes=count_bytes(result))
        return result

    def _run(self, operation: str, key: str, action: Callable[[], T]) -> T:
        return self.timed(operation, key, action, lambda result: _moved_bytes(operation, result))

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading."""
        reader = super().open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        return _RecordingReader(reader, self, key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        started_ns = clock.monotonic_ns()
        error = ""
        try:
            yield from self.inner.list(prefix)
        except StokerError as failure:
            error = type(failure).__name__
            raise
        finally:
            self.note("list", prefix, started_ns, error=error)


def _moved_bytes(operation: str, result: object) -> int:
    """Return the bytes that a call other than a read moved; puts answer with the object's size."""
    return result.size_bytes if operation in ("put", "put_parts") and isinstance(result, ObjectInfo) else 0


class _RecordingReader(ReaderLayer):
    def __init__(self, inner: Reader, store: RecordingStore, key: str) -> None:
        super().__init__(inner)
        self._store = store
        self._key = key

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range."""
        self._store.timed("read", self._key, lambda: self.inner.read_into(into), lambda _: into.nbytes)
