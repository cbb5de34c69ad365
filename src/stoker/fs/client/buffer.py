"""Bytes that were written to a file and are in memory only: pure values, on the grid of pieces.

Segments never cross a line of the grid, never overlap and never touch within a cell: overwrites and neighbours become
one segment as they come.
"""

from collections.abc import Iterator

from stoker.fs.client.options import PIECE_BYTES


class Segment:
    """Bytes at an offset of a file."""

    __slots__ = ("data", "offset")

    def __init__(self, offset: int, data: bytearray) -> None:
        self.offset = offset
        self.data = data

    @property
    def end(self) -> int:
        """Return the offset behind the last byte."""
        return self.offset + len(self.data)


class Buffer:
    """The segments of one file."""

    def __init__(self) -> None:
        self._cells: dict[int, list[Segment]] = {}
        self._full: set[int] = set()
        self.held_bytes = 0
        self.end = 0

    def write(self, offset: int, data: memoryview) -> int:
        """Lay bytes over what is there; return by how many bytes the buffer has grown."""
        before = self.held_bytes
        for start, stop in cells(offset, len(data)):
            self._lay(offset + start, data[start:stop])
        self.end = max(self.end, offset + len(data))
        return self.held_bytes - before

    def _lay(self, offset: int, data: memoryview) -> None:
        cell = offset // PIECE_BYTES
        segments = self._cells.setdefault(cell, [])
        end = offset + len(data)
        last = segments[-1] if segments else None
        if last is not None and last.end == offset:  # what a sequential writer does
            last.data += data
            self.held_bytes += len(data)
            merged = last
        else:
            merged = self._merged(segments, offset, end, data)
        if len(merged.data) == PIECE_BYTES:
            self._full.add(cell)

    def _merged(self, segments: list[Segment], offset: int, end: int, data: memoryview) -> Segment:
        touching = [one for one in segments if one.offset <= end and one.end >= offset]
        if len(touching) == 1 and touching[0].offset <= offset and end <= touching[0].end:
            only = touching[0]
            only.data[offset - only.offset : end - only.offset] = data
            return only
        start = min([offset, *(one.offset for one in touching)])
        stop = max([end, *(one.end for one in touching)])
        whole = bytearray(stop - start)
        for one in touching:
            whole[one.offset - start : one.end - start] = one.data
            self.held_bytes -= len(one.data)
        whole[offset - start : end - start] = data
        self.held_bytes += len(whole)
        merged = Segment(start, whole)
        segments[:] = sorted([*(one for one in segments if one not in touching), merged], key=lambda one: one.offset)
        return merged

    def take_full(self) -> list[Segment]:
        """Take out the segments that fill their cells, in order."""
        if not self._full:
            return []
        taken = [segment for cell in sorted(self._full) for segment in self._cells.pop(cell)]
        self._full.clear()
        self.held_bytes -= sum(len(one.data) for one in taken)
        return taken

    def take_all(self) -> list[Segment]:
        """Take out everything, in order."""
        taken = [segment for cell in sorted(self._cells) for segment in self._cells[cell]]
        self._cells.clear()
        self._full.clear()
        self.held_bytes = self.end = 0
        return taken

    def within(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Return copies of what lies in [start, stop), with their offsets, in order."""
        if not self._cells or start >= stop:
            return
        for cell in range(start // PIECE_BYTES, (stop - 1) // PIECE_BYTES + 1):
            for one in self._cells.get(cell, ()):
                low, high = max(one.offset, start), min(one.end, stop)
                if low < high:
                    yield low, bytes(memoryview(one.data)[low - one.offset : high - one.offset])


def cells(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Return the parts [start, stop) of `length` bytes that lie in one cell of the grid each, for a file's `offset`."""
    start = 0
    while start < length:
        stop = min(length, start + PIECE_BYTES - (offset + start) % PIECE_BYTES)
        yield start, stop
        start = stop
