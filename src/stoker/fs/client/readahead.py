"""How far to read ahead of a reader: a pure value. It doubles with each step of a sequential reader."""

from collections.abc import Iterator
from typing import Final

from stoker.fs.client.options import PIECE_BYTES

_FIRST_BYTES: Final = 128 << 10
STEP_BYTES: Final = 2 * PIECE_BYTES
"""So much is fetched as one: of two coded slices a disk may have two shards, which it is asked for together."""
_GRIDS: Final = (STEP_BYTES, PIECE_BYTES)


class Readahead:
    """What one handle reads next, as far as its last reads tell. A reader who jumps is left alone.

    The first step goes as far as four more such reads: who reads much at once goes on as a rule. Steps that go far end
    on the grid of slices, so that a slice is asked for once, as a whole.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._next = self._since = 0
        self._window_bytes = 0
        self._fetched_to = 0

    @property
    def steady(self) -> bool:
        """Tell whether the handle has been reading in order for a while."""
        return self._next - self._since >= STEP_BYTES

    def step(self, offset: int, size: int) -> tuple[int, int]:
        """Note a read; return the range to fetch ahead, an empty one when there is none."""
        sequential = offset == self._next and size > 0
        self._next = offset + size
        if not sequential:
            self._window_bytes = self._fetched_to = 0
            self._since = self._next
            return 0, 0
        behind = self._next
        if self._fetched_to - behind > self._window_bytes // 2:
            return 0, 0
        self._window_bytes = min(max(self._window_bytes * 2, 4 * size, _FIRST_BYTES), self._most_bytes)
        start, stop = max(self._fetched_to, behind), behind + self._window_bytes
        stop = next((end for grid in _GRIDS if (end := stop // grid * grid) > start), stop)
        if start >= stop:
            return 0, 0
        self._fetched_to = stop
        return start, stop


def steps(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Return the parts of a range that are fetched as one each: on the grid of slices, as far as that goes."""
    while start < stop:
        end = min(stop, (start // STEP_BYTES + 1) * STEP_BYTES)
        yield start, end
        start = end
