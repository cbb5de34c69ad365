"""Ceilings: how many calls are under way at once, and how many bytes are read a second."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from stoker.core import clock
from stoker.core.errors import StoreError
from stoker.core.units import format_rate
from stoker.storage.api import Capabilities, Reader, Store
from stoker.storage.layers.layer import Layer, ReaderLayer

T = TypeVar("T")

# How much an idle second may be made up for: small, so that the rate also holds over short spans.
_BURST_SECONDS: Final = 0.05
_TURN_SECONDS: Final = 600.0


class TokenBucket:
    """Makes callers wait so that on average no more than `bytes_per_second` pass. Safe from many threads."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at_ns = clock.monotonic_ns()
        self._booking = threading.Lock()

    def take(self, count_bytes: int) -> None:
        """Wait until `count_bytes` may pass; in the order of the calls."""
        cost_ns = int(count_bytes / self._bytes_per_second * 1e9)
        with self._booking:
            now_ns = clock.monotonic_ns()
            self._free_at_ns = max(self._free_at_ns, now_ns - int(_BURST_SECONDS * 1e9)) + cost_ns
            wait_ns = self._free_at_ns - now_ns
        if wait_ns > 0:
            clock.sleep(wait_ns / 1e9)


class LimitedStore(Layer):
    """Waits its turn. A read counts as under way until its reader is closed.

    A thread that holds one reader open while it opens another can so wait for itself: keep one at a time.
    """

    def __init__(self, inner: Store, in_flight: int | None, read_bytes_per_second: float | None) -> None:
        super().__init__(inner)
        self._in_flight = in_flight
        self._rate = read_bytes_per_second
        self._turns = threading.Semaphore(in_flight) if in_flight else None
        self._bucket = TokenBucket(read_bytes_per_second) if read_bytes_per_second else None

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about the inner store, and the ceilings."""
        facts = self.inner.capabilities
        notes = facts.notes + ((f"reading limited to {format_rate(self._rate)}",) if self._rate else ())
        in_flight = min(facts.in_flight, self._in_flight or facts.in_flight)
        return msgspec.structs.replace(facts, in_flight=in_flight, notes=notes)

    def _run(self, operation: str, key: str, action: Callable[[], T]) -> T:
        with self._turn():
            return action()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._begin_turn()
        try:
            yield
        finally:
            self._end_turn()

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading when it is our turn."""
        self._begin_turn()
        try:
            reader = self.inner.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        except BaseException:
            self._end_turn()
            raise
        return _LimitedReader(reader, self._bucket, self._end_turn)

    def _begin_turn(self) -> None:
        if self._turns is not None and not self._turns.acquire(timeout=_TURN_SECONDS):
            raise StoreError(
                f"waited {_TURN_SECONDS:g} s for a turn",
                where=self.url,
                expected=f"one of {self._in_flight} calls in flight to end",
                remedy="close readers that are done, or raise ?in_flight=",
            )

    def _end_turn(self) -> None:
        if self._turns is not None:
            self._turns.release()


class _LimitedReader(ReaderLayer):
    def __init__(self, inner: Reader, bucket: TokenBucket | None, end_turn: Callable[[], None]) -> None:
        super().__init__(inner)
        self._bucket = bucket
        self._end_turn: Callable[[], None] | None = end_turn

    def read_into(self, into: memoryview) -> None:
        """Fill `into` as fast as the ceiling allows."""
        if self._bucket is not None:
            self._bucket.take(into.nbytes)
        self.inner.read_into(into)

    def close(self) -> None:
        """Release the object and let the next one in."""
        self.inner.close()
        end_turn, self._end_turn = self._end_turn, None
        if end_turn is not None:
            end_turn()
