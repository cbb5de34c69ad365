"""A store that is slow, fails and breaks off, on purpose and repeatably.

Which calls fail depends on the seed, the operation, the key and how often that key was asked for, never on the order
of threads: two runs with one seed meet the same faults.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from stoker.core import clock, seed
from stoker.core.errors import TransientError
from stoker.core.units import format_seconds
from stoker.storage.api import Capabilities, Reader, Store
from stoker.storage.base import byte_view, short_read
from stoker.storage.layers.layer import Layer, ReaderLayer

T = TypeVar("T")

_SPAN: Final = 2.0**64


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: waits in seconds, shares in 0..1. Half of the failing reads fail at opening, half midway."""

    open_delay_seconds: float = 0.0
    read_delay_seconds: float = 0.0
    fail_ratio: float = 0.0
    short_ratio: float = 0.0
    seed: int = 0

    @property
    def note(self) -> str:
        """Return the sentence that every result over such a store repeats."""
        return (
            f"faults injected: {format_seconds(self.open_delay_seconds)} before opening, "
            f"{format_seconds(self.read_delay_seconds)} before reading, {self.fail_ratio:g} of the calls fail, "
            f"{self.short_ratio:g} of the reads end early, seed {self.seed}"
        )


class FaultyStore(Layer):
    """Injects `faults` into opening, reading, put and stat."""

    def __init__(self, inner: Store, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults
        self._visits: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._counting = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about the inner store, and that faults are injected."""
        facts = self.inner.capabilities
        return msgspec.structs.replace(facts, notes=(*facts.notes, self._faults.note))

    def _visit(self, operation: str, key: str) -> int:
        with self._counting:
            self._visits[operation, key] += 1
            return self._visits[operation, key]

    def _drawn(self, what: str, operation: str, key: str, visit: int) -> float:
        return seed.derive(self._faults.seed, what, operation, key, visit) / _SPAN

    def _run(self, operation: str, key: str, action: Callable[[], T]) -> T:
        if operation in ("put", "stat") and self._fails(operation, key, self._visit(operation, key)):
            raise self._failure(operation, key)
        return action()

    def _fails(self, operation: str, key: str, visit: int) -> bool:
        return self._drawn("fail", operation, key, visit) < self._faults.fail_ratio

    def _failure(self, operation: str, key: str) -> TransientError:
        return TransientError(f"injected failure of {operation}", where=f"{self.url} {key}")

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading, late, or not at all."""
        if self._faults.open_delay_seconds:
            clock.sleep(self._faults.open_delay_seconds)
        visit = self._visit("read", key)
        fails = self._fails("read", key, visit)
        midway = self._drawn("midway", "read", key, visit) < 0.5
        if fails and not midway:
            raise self._failure("open_read", key)
        reader = self.inner.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        short = self._drawn("short", "read", key, visit) < self._faults.short_ratio
        broken: Exception | None = None
        if fails:
            broken = self._failure("read", key)
        elif short and reader.range_bytes:
            half_bytes = reader.range_bytes // 2
            broken = short_read(f"{self.url} {key}", wanted_bytes=reader.range_bytes, got_bytes=half_bytes)
        return _FaultyReader(reader, self._faults.read_delay_seconds, broken)


class _FaultyReader(ReaderLayer):
    """Gives half of the range and then breaks, when `broken` is given."""

    def __init__(self, inner: Reader, delay_seconds: float, broken: Exception | None) -> None:
        super().__init__(inner)
        self._delay_seconds = delay_seconds
        self._broken = broken
        self._good_bytes = inner.range_bytes // 2

    def read_into(self, into: memoryview) -> None:
        """Fill `into`, late, or half."""
        if self._delay_seconds:
            clock.sleep(self._delay_seconds)
        if self._broken is not None and (into.nbytes > self._good_bytes or self.range_bytes == 0):
            self.inner.read_into(byte_view(into)[: self._good_bytes])
            raise self._broken
        self.inner.read_into(into)
        self._good_bytes -= into.nbytes
