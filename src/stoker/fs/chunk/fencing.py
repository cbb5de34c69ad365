"""Whether a chunk server may still write: one that no master has heard of for a while must not.

The masters call a server down after 10 s and have its shards made anew elsewhere. A server that cannot reach them, but
is reached by some clients, refuses writes before that: at half the time, so that clocks need not agree.
"""

import threading
from typing import Final

from stoker.core.errors import UnavailableError
from stoker.fs.wire.streams import Clock

FENCE_SECONDS: Final = 5.0


class Fence:
    """Knows when a master last answered. Without masters (`active` false) it never refuses."""

    def __init__(self, clock: Clock, *, active: bool, seconds: float = FENCE_SECONDS) -> None:
        self._clock, self._active, self._seconds = clock, active, seconds
        self._heard: float | None = None
        self._lock = threading.Lock()

    def heard(self, sent: float) -> None:
        """Note that a master answered what was sent at this time of the clock: that is when it surely lived."""
        with self._lock:
            self._heard = sent if self._heard is None else max(self._heard, sent)

    @property
    def closed(self) -> bool:
        """Tell whether writes are refused."""
        with self._lock:
            return self._active and (self._heard is None or self._clock() - self._heard > self._seconds)

    def check(self, doing: str) -> None:
        """Raise UnavailableError when writes are refused."""
        if self.closed:
            raise UnavailableError(
                f"{doing} is refused without contact to a master",
                expected=f"an answer of one within {self._seconds:g} s",
            )
