"""Bytes of a file that are sealed: they no longer change, are being stored as slices, and wait to be shown."""

from collections.abc import Sequence
from concurrent.futures import Future

from stoker.fs.client.buffer import cells
from stoker.fs.client.spans import Span
from stoker.fs.meta.calls import Caller
from stoker.fs.meta.slices import Slice


class Piece:
    """Sealed bytes that become one slice."""

    __slots__ = ("data", "future", "slice")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.slice: Slice | None = None
        self.future: Future[None] | None = None


class Run:
    """Sealed bytes that are shown by one request: at an offset, or at the end, which `offset` then foretells."""

    __slots__ = ("append", "at", "caller", "offset", "pieces", "size_bytes", "written_ns")

    def __init__(self, offset: int, data: bytearray, *, append: bool, caller: Caller, written_ns: int) -> None:
        view = memoryview(data).toreadonly()
        self.offset = offset
        self.append = append
        self.caller = caller
        self.written_ns = written_ns
        self.size_bytes = len(view)
        self.at = offset
        self.pieces = [Piece(view[a:b]) for a, b in cells(0 if append else offset, len(view))]

    @property
    def end(self) -> int:
        """Return the offset behind the last byte."""
        return self.offset + self.size_bytes

    def spans(self) -> list[Span]:
        """Return the bytes as spans of the file."""
        place, found = self.offset, []
        for piece in self.pieces:
            found.append(Span(place, place + len(piece.data), piece.data, 0))
            place += len(piece.data)
        return found


def joined(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs in groups that one request shows: neighbours in the file, by the same caller."""
    groups: list[list[Run]] = []
    for run in runs:
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and not last.append
            and not run.append
            and last.end == run.offset
            and last.caller == run.caller
        ):
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups
