"""How far to read ahead of a reader: a pure value. It doubles with each step of a sequential reader."""

from typing import Final

_FIRST_BYTES: Final = 128 << 10


class Readahead:
    """What one handle reads next, as far as its last reads tell. A reader who jumps is left alone."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._next = 0
        self._window_bytes = 0
        self._fetched_to = 0

    def step(self, offset: int, size: int) -> tuple[int, int]:
        """Note a read; return the range to fetch ahead, an empty one when there is none."""
        sequential = offset == self._next and size > 0
        self._next = offset + size
        if not sequential:
            self._window_bytes = self._fetched_to = 0
            return 0, 0
        behind = self._next
        if self._fetched_to - behind > self._window_bytes // 2:
            return 0, 0
        self._window_bytes = min(max(self._window_bytes * 2, _FIRST_BYTES), self._most_bytes)
        start, stop = max(self._fetched_to, behind), behind + self._window_bytes
        if start >= stop:
            return 0, 0
        self._fetched_to = stop
        return start, stop
