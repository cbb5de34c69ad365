"""Repeats what failed for a passing reason, a bounded number of times, and counts it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from stoker.core import clock, seed
from stoker.core.errors import AlreadyExistsError, StoreError, TransientError
from stoker.storage.api import Buffer, ObjectInfo, Reader, Store, SupportsRetryCount
from stoker.storage.base import byte_view, version_of
from stoker.storage.batch import BatchReader, SupportsBatchRead
from stoker.storage.layers.layer import Layer, ReaderLayer
from stoker.storage.layers.retry_batch import RetryBatchReader, spent

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 5.0
# Repeating these changes nothing. A rename is not among them: its second try no longer finds the source. Neither
# is a put of parts, which can be read only once.
_REPEATABLE: Final = frozenset({"open_read", "put", "stat", "delete"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` tries in all, none begun later than `deadline_seconds` after the first.

    The wait doubles from 0.1 s to 5 s; of each a random half to whole is waited, so that callers do not come in step.
    """

    attempts: int = 4
    deadline_seconds: float = 30.0

    def wait_seconds(self, key: str, failures: int) -> float:
        """Return how long to wait after the `failures`-th failure of a call about `key`."""
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (failures - 1))
        drawn = seed.derive(clock.monotonic_ns(), key, failures) / 2.0**64
        return longest * (0.5 + drawn / 2)


class RetryStore(Layer):
    """Repeats TransientError only; when the tries are spent, raises UnavailableError.

    A body that breaks off midway is fetched again from the first byte not yet delivered.
    """

    def __init__(self, inner: Store, policy: RetryPolicy) -> None:
        super().__init__(inner)
        self._policy = policy
        self._retries = 0
        self._counting = threading.Lock()

    @property
    def retry_count(self) -> int:
        """Return how many calls were repeated so far, here or by the inner store."""
        return self._retries + (self.inner.retry_count if isinstance(self.inner, SupportsRetryCount) else 0)

    def repeated(self, key: str, action: Callable[[int], T]) -> T:
        """Return what `action`, called with the number of failures so far, returns at last."""
        started_ns = clock.monotonic_ns()
        failures = 0
        while True:
            try:
                return action(failures)
            except TransientError as error:
                failures += 1
                wait_seconds = self.wait_seconds(key, failures, started_ns)
                if wait_seconds is None:
                    raise spent(error, failures) from error
            self.count_repeats(1)
            clock.sleep(wait_seconds)

    def wait_seconds(self, key: str, failures: int, started_ns: int) -> float | None:
        """Return how long to wait after the `failures`-th failure, None when the tries or the time are spent."""
        wait_seconds = self._policy.wait_seconds(key, failures)
        spent_seconds = (clock.monotonic_ns() - started_ns) / 1e9 + wait_seconds
        if failures >= self._policy.attempts or spent_seconds > self._policy.deadline_seconds:
            return None
        return wait_seconds

    def count_repeats(self, number: int) -> None:
        """Note that so many calls are made again."""
        with self._counting:
            self._retries += number

    def batch_reader(self, *, residency: bool = True) -> BatchReader | None:
        """Return a reader that repeats the failed ranges of a batch, None when the inner store offers none."""
        if not isinstance(self.inner, SupportsBatchRead):
            return None
        reader = self.inner.batch_reader(residency=residency)
        return None if reader is None else RetryBatchReader(reader, self)

    def _run(self, operation: str, key: str, action: Callable[[], T]) -> T:
        if operation not in _REPEATABLE:
            return action()
        return self.repeated(key, lambda _: action())

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading."""
        reader = super().open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        return _RetryReader(reader, self, key, offset_bytes)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all."""
        if not if_absent:
            return super().put(key, data)
        return self.repeated(key, lambda failures: self._put_absent(key, data, failures))

    def _put_absent(self, key: str, data: Buffer, failures: int) -> ObjectInfo:
        """Put once. After a failure the object may be there because the failed try did write it."""
        try:
            return self.inner.put(key, data, if_absent=True)
        except AlreadyExistsError:
            if failures and self._holds(key, data):
                return self.inner.stat(key)
            raise

    def _holds(self, key: str, data: Buffer) -> bool:
        view = byte_view(data)
        return self.inner.stat(key).size_bytes == view.nbytes and self.inner.get_range(key) == view

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`; after a failure, go on behind the last key yielded."""
        last = ""
        pages: Iterator[ObjectInfo] = iter(())

        def following(failures: int) -> ObjectInfo | None:
            nonlocal pages
            if failures:
                pages = self.inner.list(prefix)
            return next((info for info in pages if info.key > last), None)

        pages = self.repeated(prefix, lambda _: self.inner.list(prefix))
        while (info := self.repeated(prefix, following)) is not None:
            last = info.key
            yield info


class _RetryReader(ReaderLayer):
    def __init__(self, inner: Reader, store: RetryStore, key: str, offset_bytes: int) -> None:
        super().__init__(inner)
        self._store = store
        self._key = key
        self._known_version = version_of(inner)
        self._start = self._position = offset_bytes
        self._end = offset_bytes + inner.range_bytes

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range, opening it again where it broke."""
        self._store.repeated(self._key, lambda failures: self._read(into, again=failures > 0))
        self._position += into.nbytes

    def _read(self, into: memoryview, *, again: bool) -> None:
        if again and not getattr(self.inner, "resumes", False):
            self._reopen()
        self.inner.read_into(into)

    def _reopen(self) -> None:
        self.inner.close()
        length_bytes = self._end - self._position
        self.inner = self._store.inner.open_read(self._key, offset_bytes=self._position, length_bytes=length_bytes)
        version = version_of(self.inner)
        fresh = self._position == self._start  # nothing of the old version was handed out yet
        if self.inner.object_bytes != self.object_bytes or (version != self._known_version and not fresh):
            raise StoreError(
                "object changed while it was read",
                where=f"{self._store.url} {self._key}",
                expected=f"{self.object_bytes} bytes, version {self._known_version!r}",
                got=f"{self.inner.object_bytes} bytes, version {version!r}",
                remedy="read it again from the beginning",
            )
        self._known_version = version
