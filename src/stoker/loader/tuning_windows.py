"""Cuts running sums into the windows that the tuner looks at. No clock: the caller says what time it is."""

from typing import Final

import msgspec

from stoker.loader.tuning import Window

WINDOW_NS: Final = 250_000_000
WINDOW_NS_MAX: Final = 4_000_000_000
REQUESTS_MIN: Final = 16
"""Fewer tell little of a target: the window goes on, up to its longest."""


class Sums(msgspec.Struct, frozen=True):
    """What was counted since the loader was made; the fields mean what those of `Window` do."""

    read_bytes: int = 0
    requests: int = 0
    waited_ns: int = 0
    read_busy_ns: int = 0
    cpu_ns: int = 0


class Windows:
    """One after the other. `begin` anew with each epoch: what lies between two is not looked at."""

    def __init__(self, now_ns: int, sums: Sums) -> None:
        self.begin(now_ns, sums)

    def begin(self, now_ns: int, sums: Sums) -> None:
        """Begin a window now."""
        self._since_ns, self._before = now_ns, sums

    def due(self, now_ns: int) -> bool:
        """Tell whether a window may end now: cheaper than to take the sums and ask."""
        return now_ns - self._since_ns >= WINDOW_NS

    def end(self, now_ns: int, sums: Sums) -> Window | None:
        """End the window now and begin the next; None when it is too short to tell anything, and goes on."""
        wall_ns = now_ns - self._since_ns
        before = self._before
        few = sums.requests - before.requests < REQUESTS_MIN and wall_ns < WINDOW_NS_MAX
        if wall_ns < WINDOW_NS or few:
            return None
        self.begin(now_ns, sums)
        names = Sums.__struct_fields__
        return Window(wall_ns, **{name: getattr(sums, name) - getattr(before, name) for name in names})
