"""The log in shared memory: frames at growing positions, each whole in the ring.

A position is the number of ring bytes ever used; it lies at `position % ring_bytes`. A frame that does not fit before
the ring's end begins at its start, and the word SKIP stands where it would have begun. Frames from FLOOR_POS to
COMMITTED_POS can be read; older ones may be overwritten at any time.
"""

from collections.abc import Iterator
from typing import Final

from stoker.pages.arena.layout import SKIP, Word
from stoker.pages.arena.mapping import Mapping
from stoker.pages.errors import OutOfSpace
from stoker.pages.frames import Frame, decode_frame

_LENGTH: Final = 4


class Ring:
    """The ring of one arena. Writing wants the commit lock; reading wants none."""

    def __init__(self, mapping: Mapping, *, keep_unflushed: bool) -> None:
        geometry = mapping.geometry
        self._words = mapping.words
        self._data = mapping.data[geometry.ring_offset : geometry.ring_offset + geometry.ring_bytes]
        self.ring_bytes = geometry.ring_bytes
        self.salt = geometry.salt
        self._keep_unflushed = keep_unflushed

    def length_at(self, position: int) -> int:
        """Return the length of the frame that begins at a position."""
        at = position % self.ring_bytes
        return int.from_bytes(self._data[at : at + _LENGTH], "little")

    def next_position(self, position: int, length: int) -> int:
        """Return where a frame of this length begins when the last one ended at `position`."""
        at = position % self.ring_bytes
        return position if at + length <= self.ring_bytes else position + self.ring_bytes - at

    def end_of(self, lengths: list[int]) -> int:
        """Return the position behind frames of these lengths. Raises OutOfSpace for more than half the ring.

        What is skipped at the ring's end, less than the frame behind it, comes on top: together less than the ring.
        """
        end = self._words[Word.COMMITTED_POS]
        for length in lengths:
            end = self.next_position(end, length) + length
        if sum(lengths) > self.ring_bytes // 2:
            raise OutOfSpace(
                "commit is too large for the log ring",
                expected=f"at most {self.ring_bytes // 2} bytes",
                got=f"{sum(lengths)} bytes",
                remedy="write it in several commits, or open the store with a larger log_bytes",
            )
        return int(end)

    def has_room(self, end: int) -> bool:
        """Tell whether nothing that is still to be flushed would be overwritten up to `end`."""
        return not self._keep_unflushed or end - self._words[Word.FLUSHED_POS] <= self.ring_bytes

    def write(self, frames: list[bytes], end: int) -> None:
        """Put frames behind the committed ones; they count only once the intent is set."""
        self._words[Word.RESERVED_POS] = max(end, self._words[Word.RESERVED_POS])
        self._raise_floor(end - self.ring_bytes)
        position = self._words[Word.COMMITTED_POS]
        for frame in frames:
            begin = self.next_position(position, len(frame))
            if begin != position:
                at = position % self.ring_bytes
                self._data[at : at + _LENGTH] = SKIP.to_bytes(_LENGTH, "little")
            if begin % self.ring_bytes == 0:
                self._words[Word.WRAP_POS] = position
            at = begin % self.ring_bytes
            self._data[at : at + len(frame)] = frame
            position = begin + len(frame)

    def _raise_floor(self, least: int) -> None:
        floor, lsn = self._words[Word.FLOOR_POS], self._words[Word.FLOOR_LSN]
        while floor < least:
            length = self.length_at(floor)
            if length == SKIP:
                floor += self.ring_bytes - floor % self.ring_bytes
            else:
                floor, lsn = floor + length, lsn + 1
        self._words[Word.FLOOR_LSN] = lsn
        self._words[Word.FLOOR_POS] = floor

    def mend_floor(self) -> None:
        """Set the floor's LSN from the frame that lies there: the two words are not written at once."""
        floor = self.skip(self._words[Word.FLOOR_POS])
        if floor < self._words[Word.COMMITTED_POS]:
            at = floor % self.ring_bytes + 8
            self._words[Word.FLOOR_LSN] = int.from_bytes(self._data[at : at + 8], "little")

    def skip(self, position: int) -> int:
        """Return where the frame behind `position` begins: there, or at the ring's start."""
        if self.length_at(position) == SKIP:
            return position + self.ring_bytes - position % self.ring_bytes
        return position

    def frames(self, start: int, end: int) -> Iterator[Frame]:
        """Yield the frames between two positions, payloads as views; they hold while nobody overwrites them."""
        while start < end:
            start = self.skip(start)
            if start >= end:
                return
            frame = decode_frame(self._data, start % self.ring_bytes, self.salt)
            if frame is None:
                return
            yield frame
            start += self.length_at(start)

    def pieces(self, start: int, end: int) -> list[memoryview]:
        """Return the bytes between two positions, at most a ring apart, without what was skipped."""
        if start == end:
            return []
        wrap = self._words[Word.WRAP_POS]
        if start // self.ring_bytes == (end - 1) // self.ring_bytes:
            at = start % self.ring_bytes
            return [self._data[at : at + end - start]]
        border = end - end % self.ring_bytes if end % self.ring_bytes else end - self.ring_bytes
        stop = wrap if start <= wrap < border else border
        first = self._data[start % self.ring_bytes : start % self.ring_bytes + stop - start]
        return [piece for piece in (first, self._data[: end - border]) if len(piece)]

    def overwritten(self, start: int) -> bool:
        """Tell whether what was just read from `start` on may have been overwritten meanwhile."""
        return self._words[Word.RESERVED_POS] - start > self.ring_bytes
