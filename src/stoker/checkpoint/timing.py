"""Where the time of a save or a load went: seconds a stage, and a latency histogram of the pieces."""

import threading

from stoker.core.histogram import Histogram


class StageClock:
    """Adds up, from any thread, how long the pieces of each stage took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._histograms: dict[str, Histogram] = {}
        self._adding = threading.Lock()

    def add(self, stage: str, duration_ns: int) -> None:
        """Enter one piece of work."""
        with self._adding:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + duration_ns / 1e9
            self._histograms.setdefault(stage, Histogram()).record(duration_ns)

    @property
    def seconds(self) -> dict[str, float]:
        """Return the sums so far by stage."""
        with self._adding:
            return dict(self._seconds)

    def encoded(self) -> dict[str, str]:
        """Return the histograms by stage, encoded."""
        with self._adding:
            return {stage: histogram.encode() for stage, histogram in self._histograms.items()}
