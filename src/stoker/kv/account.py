"""What a cache did, counted from many threads: bytes and operations a tier, latencies, the ledger."""

import threading
from collections.abc import Sequence
from typing import Final

from stoker.core.histogram import Histogram
from stoker.core.kvcache import DEMOTE_READ, DEMOTE_WRITE, READ, SAMPLES_MAX, STORAGE, WRITE, KvCounts, TierCounts
from stoker.core.ledger import Ledger
from stoker.kv.spans import Spans

_COUNTED: Final = {
    READ: ("reads", "read_bytes"),
    WRITE: ("writes", "write_bytes"),
    DEMOTE_READ: ("demote_reads", "demote_read_bytes"),
    DEMOTE_WRITE: ("demote_writes", "demote_write_bytes"),
}
_STAGES: Final = {READ: "read", WRITE: "write", DEMOTE_READ: "read", DEMOTE_WRITE: "write"}


class Account:
    """The counts of one trial. Safe from many threads."""

    def __init__(self, tiers: Sequence[str], samples_max: int = SAMPLES_MAX) -> None:
        self._samples_max = samples_max
        self._lock = threading.Lock()
        self.tiers = {name: TierCounts() for name in tiers}
        self.counts = KvCounts()
        self.samples: dict[str, list[float]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._ledger = Ledger()
        self._busy: dict[str, float] = {}

    # -- what meters ask ---------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """Return a copy of the bytes entered so far: those of storage."""
        with self._lock:
            copy = Ledger()
            copy.add(self._ledger)
            return copy

    @property
    def busy_seconds(self) -> dict[str, float]:
        """Return how long all threads together read, wrote, made content and checked it."""
        with self._lock:
            return dict(self._busy)

    stall_seconds = busy_seconds

    # -- what the cache enters ---------------------------------------------------------------------------------------

    def moved(self, tier: str, operation: str, size_bytes: int, spans: Spans) -> None:
        """Enter an entry that was read or written whole."""
        count, size = _COUNTED[operation]
        with self._lock:
            counts = self.tiers[tier]
            setattr(counts, count, getattr(counts, count) + 1)
            setattr(counts, size, getattr(counts, size) + size_bytes)
            counts.entry_bytes_max = max(counts.entry_bytes_max, size_bytes)
            name = f"{tier}_{operation}"
            self._record(name, spans.span_ns)
            self._add_busy(_STAGES[operation], spans.span_ns)
            self._add_busy("verify" if operation == READ else "make", spans.content_ns)
            self.counts.content_seconds += spans.content_ns / 1e9
            if tier == STORAGE:
                self._record(f"{name}_device", spans.device_ns)
                self._record(f"{name}_host", spans.host_ns)
                self._enter(operation, size_bytes, spans)

    def _enter(self, operation: str, size_bytes: int, spans: Spans) -> None:
        ledger, counts = self._ledger, self.counts
        counts.storage_io_seconds += spans.span_ns / 1e9
        if operation in (WRITE, DEMOTE_WRITE):
            ledger.written_bytes += size_bytes
            ledger.files_written += 1
            counts.device_seconds_write += spans.device_ns / 1e9
            return
        counts.device_seconds_read += spans.device_ns / 1e9
        cached = spans.cached_bytes
        ledger.requested_bytes += size_bytes
        ledger.wanted_bytes += size_bytes
        ledger.delivered_bytes += size_bytes
        ledger.files_opened += 1
        if cached is not None:
            ledger.from_cache_bytes += cached
            ledger.from_store_bytes += size_bytes - cached

    def counted(self, **more: float) -> None:
        """Add to the counts of requests, by name."""
        with self._lock:
            for name, value in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + value)

    def tier_counted(self, tier: str, **more: int) -> None:
        """Add to the counts of a tier, by name."""
        with self._lock:
            counts = self.tiers[tier]
            for name, value in more.items():
                setattr(counts, name, getattr(counts, name) + value)

    def lasted(self, name: str, duration_ns: int) -> None:
        """Enter a duration under a name of its own."""
        with self._lock:
            self._record(name, duration_ns)

    def _record(self, name: str, duration_ns: int) -> None:
        self._histograms.setdefault(name, Histogram()).record(duration_ns)
        samples = self.samples.setdefault(name, [])
        if len(samples) < self._samples_max:
            samples.append(round(duration_ns / 1e6, 4))

    def _add_busy(self, stage: str, duration_ns: int) -> None:
        self._busy[stage] = self._busy.get(stage, 0.0) + duration_ns / 1e9

    def encoded(self) -> dict[str, str]:
        """Return the histograms, encoded."""
        with self._lock:
            return {name: histogram.encode() for name, histogram in self._histograms.items()}
