"""What a rank counts while it is measured, and only then."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from stoker.bench.workloads.counters import Sources, cpu_seconds, difference, peak_memory_bytes
from stoker.bench.workloads.reports import Snapshot, ledger_difference
from stoker.core import clock
from stoker.core.ledger import Counters, Ledger


class Counted(Protocol):
    """What works inside a window and counts as it goes: a loader, or whoever saves and loads checkpoints."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def busy_seconds(self) -> dict[str, float]: ...

    @property
    def stall_seconds(self) -> dict[str, float]: ...


@dataclass
class Window:
    """What one window counted, once it has been left."""

    ledger: Ledger = field(default_factory=Ledger)
    counters: Counters = field(default_factory=Counters)


class Meters:
    """Adds up the windows in which something is measured.

    `snapshot` may be called from any thread, also inside a window.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._total = Snapshot()
        self._window: tuple[Counted, Snapshot] | None = None

    def _now(self, loader: Counted) -> Snapshot:
        return Snapshot(
            ledger=loader.ledger,
            counters=self._sources.read(),
            busy_seconds=loader.busy_seconds,
            stall_seconds=loader.stall_seconds,
            cpu_seconds=cpu_seconds(),
            wall_seconds=clock.monotonic_ns() / 1e9,
            peak_memory_bytes=peak_memory_bytes(),
        )

    @contextmanager
    def window(self, loader: Counted) -> Iterator["Window"]:
        """Count while `loader` reads: begin before its epoch does, leave when its reading has ended."""
        window = Window()
        with self._lock:
            assert self._window is None
            self._window = (loader, self._now(loader))
        try:
            yield window
        finally:
            with self._lock:
                before, after = self._window[1], self._now(loader)
                self._total = self._total.plus(after, before)
                self._window = None
                window.ledger = ledger_difference(after.ledger, before.ledger)
                if after.counters is not None and before.counters is not None:
                    window.counters = difference(after.counters, before.counters)

    def snapshot(self) -> Snapshot:
        """Return the sum of all windows so far, with the open one up to now."""
        with self._lock:
            return self._sum()

    def _sum(self) -> Snapshot:
        if self._window is None:
            return self._total
        loader, before = self._window
        return self._total.plus(self._now(loader), before)

    def correct_wanted(self, wanted_bytes: int) -> None:
        """Take bytes off what was wanted: they were made ready for steps that the run ended before."""
        with self._lock:
            self._total.ledger.wanted_bytes -= wanted_bytes
