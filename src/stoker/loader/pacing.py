"""Measures reading in windows of time, asks the tuner after each, and says what readers are to use now."""

import os
import time
from typing import Any, Final

from stoker.core import clock
from stoker.loader.tally import Tally
from stoker.loader.tuning import Tuner, Window
from stoker.loader.tuning_bounds import Settings

WINDOW_NS: Final = 300_000_000
"""Long enough for a busy reader to finish a few reads, short enough to choose within seconds."""


class Pace:
    """The settings of one loader's readers, over all its epochs. `consumer` calls only from the consuming thread."""

    def __init__(self, tuner: Tuner, tally: Tally) -> None:
        self._tuner = tuner
        self._tally = tally
        self._before = self._seen()
        self._chosen: dict[str, str | int] = {}

    @property
    def settings(self) -> Settings:
        """Return what readers are to use now."""
        return self._tuner.settings

    def begin(self) -> None:
        """Leave out what happened since the last window: the time between two epochs."""
        self._before = self._seen()

    def consumer_took(self) -> bool:
        """Close the window if it lasted long enough; tell whether other settings are to be used now."""
        if clock.monotonic_ns() - self._before[0] < WINDOW_NS:
            return False
        before, self._before = self._before, self._seen()
        used = self._tuner.settings
        window = Window(*(now - then for now, then in zip(self._before, before, strict=True)))
        return self._tuner.observe(window) != used

    def note(self, chosen: dict[str, str | int]) -> None:
        """Keep what a reader says of what it works with."""
        self._chosen = chosen

    def told(self) -> dict[str, Any]:
        """Return what was chosen, by whom and why, for results."""
        return {**self._tuner.told(), "engine": self._chosen.get("engine", "one range at a time")}

    def _seen(self) -> tuple[int, int, int, int, int, int]:
        tally = self._tally
        return (
            clock.monotonic_ns(),
            sum(ledger.requested_bytes for ledger in tally.ledgers),
            sum(tally.requests),
            tally.waited_ns,
            sum(tally.reading_ns),
            time.process_time_ns(),
        )


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))
