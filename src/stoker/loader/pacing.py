"""Measures reading in windows of time, asks the tuner after each, and says what readers are to use now."""

import os
import time
from typing import Any, Final

from stoker.core import clock
from stoker.loader.tally import Tally
from stoker.loader.tuning import Tuner, Window
from stoker.loader.tuning_bounds import Settings

WINDOW_NS: Final = 300_000_000
"""Short enough to choose within seconds."""
WINDOW_NS_MAX: Final = 4_000_000_000
READS_MIN: Final = 4
"""Reads of each reader in a window. They are counted when they end: of few, it is chance how many end in it."""


_Seen = tuple[int, ...]


class Pace:
    """The settings of one loader's readers, over all its epochs. `consumer` calls only from the consuming thread."""

    def __init__(self, tuner: Tuner, tally: Tally) -> None:
        self._tuner = tuner
        self._tally = tally
        self._chosen: dict[str, str | int] = {}
        self._before = self._seen()
        self._ended: _Seen | None = None

    @property
    def settings(self) -> Settings:
        """Return what readers are to use now."""
        return self._tuner.settings

    def begin(self) -> None:
        """Go on with an epoch. The window that the one before left open goes on, too: an epoch may be shorter."""
        if self._ended is not None:
            between = _less(self._seen(), self._ended)
            self._before = tuple(then + gap for then, gap in zip(self._before, between, strict=True))
            self._ended = None

    def end(self) -> None:
        """Leave out what happens from now until the next epoch begins."""
        self._ended = self._ended or self._seen()

    def consumer_took(self) -> bool:
        """Close the window if it lasted long enough; tell whether other settings are to be used now."""
        wall_ns = clock.monotonic_ns() - self._before[0]
        if wall_ns < WINDOW_NS or (wall_ns < WINDOW_NS_MAX and self._few_reads()):
            return False
        before, self._before = self._before, self._seen()
        used = self._tuner.settings
        *counted, _ = _less(self._before, before)
        return self._tuner.observe(Window(*counted)) != used

    def note(self, chosen: dict[str, str | int]) -> None:
        """Keep what a reader says of what it works with."""
        self._chosen = chosen

    def told(self) -> dict[str, Any]:
        """Return what was chosen, by whom and why, for results."""
        return self._tuner.told(engine=str(self._chosen.get("engine", "")))

    def _few_reads(self) -> bool:
        return sum(self._tally.reads) - self._before[-1] < READS_MIN * self._tuner.settings.readers

    def _seen(self) -> _Seen:
        """Return the sums that a window is the difference of, and the number of reads."""
        tally = self._tally
        return (
            clock.monotonic_ns(),
            sum(ledger.requested_bytes for ledger in tally.ledgers),
            sum(tally.requests),
            tally.waited_ns,
            sum(tally.reading_ns),
            time.process_time_ns(),
            sum(tally.reads),
        )


def _less(later: _Seen, earlier: _Seen) -> _Seen:
    return tuple(now - then for now, then in zip(later, earlier, strict=True))


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))
