"""How each holder fared for this client: a circuit breaker, recent latencies, and what was counted.

The breaker decides whom to ask first, never who belongs to the cluster: that is the map's affair.
"""

from collections import Counter, deque
from collections.abc import Callable
from threading import Lock
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, StokerError, TransientError, UnavailableError

_FAILURES_MAX: Final = 3
_PAUSE_SECONDS: Final = 1.0
_PAUSE_SECONDS_MAX: Final = 30.0
_LATENCIES: Final = 256
_LATENCIES_MIN: Final = 16
_FRESH_MIN: Final = 16
"""After so many reads the percentile is computed anew."""
_LATE: Final = 0.99
"""This part of recent reads was quicker. A slice is read from many disks: with 0.95 every third would be hedged."""
_CLASS_BITS: Final = 3
"""Reads of sizes within a factor of eight are compared with each other."""


class Breaker(msgspec.Struct, frozen=True):
    """Closed until three calls in a row fail; then open for a pause, which doubles with each failure behind it."""

    failures: int = 0
    open_until: float = 0.0

    def allows(self, now: float) -> bool:
        """Tell whether the holder should be asked: one whose pause is over is tried once more."""
        return self.failures < _FAILURES_MAX or now >= self.open_until

    def failed(self, now: float) -> "Breaker":
        """Return the breaker after a call that failed."""
        failures = self.failures + 1
        pause = min(_PAUSE_SECONDS * 2.0 ** min(failures - _FAILURES_MAX, 10), _PAUSE_SECONDS_MAX)
        return Breaker(failures, now + pause if failures >= _FAILURES_MAX else 0.0)


class Counts(msgspec.Struct, frozen=True):
    """What was counted: reads, those that had to be decoded or hedged, and holders' faults by disk."""

    reads: int
    degraded_reads: int
    hedged_reads: int
    searched_reads: int
    writes: int
    short_writes: int
    corrupt_by_disk: dict[int, int]
    failed_by_disk: dict[int, int]


class _Latencies:
    """How long recent reads of about one size took."""

    def __init__(self, hedge_seconds: float) -> None:
        self.seconds: deque[float] = deque(maxlen=_LATENCIES)
        self.fresh = 0
        self.hedge_seconds = hedge_seconds


class Health:
    """The breakers, latencies and counters of one client. Safe from many threads."""

    def __init__(self, clock: Callable[[], float], hedge_seconds_min: float, hedge_seconds_max: float) -> None:
        self._clock = clock
        self._lock = Lock()
        self._breakers: dict[int, Breaker] = {}
        self._bounds = hedge_seconds_min, hedge_seconds_max
        self._latencies: dict[int, _Latencies] = {}
        self._counts: Counter[str] = Counter()
        self._corrupt: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()

    def allows(self, disk: int) -> bool:
        """Tell whether a disk's breaker lets calls through."""
        with self._lock:
            return self._breakers.get(disk, Breaker()).allows(self._clock())

    def answered(self, disk: int, seconds: float, *, read_bytes: int) -> None:
        """Note a call that came back; of one that read, how long that took."""
        with self._lock:
            self._breakers.pop(disk, None)
            if read_bytes:
                latencies = self._of_size(read_bytes)
                latencies.seconds.append(seconds)
                latencies.fresh += 1

    def _of_size(self, read_bytes: int) -> _Latencies:
        """Return the latencies of reads of about this size; the lock is held."""
        number = read_bytes.bit_length() // _CLASS_BITS
        found = self._latencies.get(number)
        if found is None:
            found = self._latencies[number] = _Latencies(self._bounds[1])
        return found

    def failed(self, disk: int, error: Exception) -> None:
        """Note a call that did not: only a holder that cannot be reached or used counts against it."""
        with self._lock:
            if isinstance(error, CorruptError):
                self._corrupt[disk] += 1
            if isinstance(error, UnavailableError | TransientError) or not isinstance(error, StokerError):
                self._failed[disk] += 1
                self._breakers[disk] = self._breakers.get(disk, Breaker()).failed(self._clock())

    def hedge_seconds(self, read_bytes: int) -> float:
        """Return after how long another shard is asked for: the 99th percentile of recent reads, within bounds.

        The reads are those of about this size. Four times the median at most: where a disk of a few is slow, it is the
        99th percentile by itself.
        """
        low, high = self._bounds
        with self._lock:
            latencies = self._of_size(read_bytes)
            if len(latencies.seconds) >= _LATENCIES_MIN and latencies.fresh >= _FRESH_MIN:
                latencies.fresh = 0
                ordered = sorted(latencies.seconds)
                slow, usual = ordered[int(_LATE * (len(ordered) - 1))], ordered[len(ordered) // 2]
                latencies.hedge_seconds = min(max(min(slow, 4 * usual), low), high)
            return latencies.hedge_seconds

    def count(self, what: str) -> None:
        """Count one more of something, named as the field of Counts."""
        with self._lock:
            self._counts[what] += 1

    def counts(self) -> Counts:
        """Return what was counted so far."""
        with self._lock:
            counts = self._counts
            return Counts(
                counts["reads"], counts["degraded_reads"], counts["hedged_reads"], counts["searched_reads"],
                counts["writes"], counts["short_writes"], dict(self._corrupt), dict(self._failed),
            )  # fmt: skip
