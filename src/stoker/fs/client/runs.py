"""Bytes of a file that are sealed: they no longer change, are being stored as slices, and wait to be shown."""

from collections.abc import Sequence
from concurrent.futures import Future

from stoker.fs.client.buffer import cells
from stoker.fs.client.packs import Part, shown_by
from stoker.fs.client.spans import Span
from stoker.fs.meta.calls import Call, Caller, Write
from stoker.fs.meta.slices import Slice


class Piece:
    """Sealed bytes that become one slice."""

    __slots__ = ("data", "future", "offset", "slice")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.slice: Slice | None = None
        self.offset = 0  # in the slice: other than 0, or less than all of it, in a pack
        self.future: Future[None] | None = None

    @property
    def part(self) -> Part | None:
        """Return where it is stored, None when it is not."""
        return None if self.slice is None else Part(self.slice, self.offset, len(self.data))

    def put_into(self, part: Part | None) -> None:
        """Note where it is stored, or that it must be stored anew."""
        self.slice, self.offset, self.future = (None, 0, None) if part is None else (part.slice, part.offset, None)


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


def write_call(ino: int, session: int, group: Sequence[Run]) -> Call:
    """Return the call that shows runs, which are stored and neighbours, in a file."""
    first = group[0]
    slices, parts = shown_by([part for run in group for piece in run.pieces if (part := piece.part) is not None])
    offset = 0 if first.append else first.offset
    request = Write(ino, slices, offset, first.append, written_ns=group[-1].written_ns, parts=parts)
    return Call(request, first.caller, session)


def awaited(pieces: Sequence[Piece]) -> BaseException | None:
    """Wait for pieces that are being stored; return what one that failed raised. It is stored again at the next try."""
    failed = None
    for piece in pieces:
        if piece.future is not None:
            failed = piece.future.exception() or failed
            piece.future = None
    return failed
