"""What a rank counts while it is measured, and only then."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stoker.bench.workloads.counters import Sources, cpu_seconds, peak_memory_bytes
from stoker.bench.workloads.reports import Snapshot, ledger_difference
from stoker.core import clock
from stoker.core.ledger import Ledger
from stoker.loader.loader import Loader


@dataclass
class Window:
    """What one window counted, once it has been left."""

    ledger: Ledger = field(default_factory=Ledger)


class Meters:
    """Adds up the windows in which a loader reads. `snapshot` may be called from any thread, also inside a window."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._total = Snapshot()
        self._window: tuple[Loader, Snapshot] | None = None

    def _now(self, loader: Loader) -> Snapshot:
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
    def window(self, loader: Loader) -> Iterator["Window"]:
        """Count while `loader` reads: begin before its epoch does, leave when its reading has ended."""
        window = Window()
        with self._lock:
            assert self._window is None
            self._window = (loader, self._now(loader))
        try:
            yield window
        finally:
            with self._lock:
                before = self._window[1].ledger
                self._total = self._sum()
                self._window = None
                window.ledger = ledger_difference(loader.ledger, before)

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
