"""Where every piece of a chunk goes in one buffer, and what to read for it: columns for a batch reader. Pure."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from stoker.loader.layouts import Piece
from stoker.loader.order import Int64s
from stoker.storage.buffers import PAGE_BYTES

Row = tuple[int, int, int, int, int]
"""A range to read: number of its file among the plan's, offset, wanted bytes, room, and where in the buffer it goes."""

Span = tuple[int, int]
"""Where in the buffer a piece's bytes begin and end."""


class Read(msgspec.Struct, frozen=True):
    """One range of a file, and where in the task's bytes, laid end to end, it goes."""

    offset_bytes: int
    length_bytes: int
    at: int


class ReadPlan:
    """What to read for a chunk.

    files   the manifest's number of each file to open, in the order of the rows
    rows    the ranges; `spans` holds, task by task, where the bytes of each piece lie
    size_bytes  of the buffer that takes it all
    """

    def __init__(self) -> None:
        self.files: list[int] = []
        self.rows: list[Row] = []
        self.spans: list[list[Span]] = []
        self.size_bytes = 0

    def ranges(self, address: int) -> Int64s:
        """Return the rows as a batch reader wants them, for a buffer at `address`."""
        columns = np.array(self.rows, dtype=np.int64).reshape(-1, 5)
        columns[:, 4] += address
        return columns


def bytes_of(pieces: Sequence[Piece]) -> int:
    """Return the bytes to read for all pieces."""
    if len(pieces) == 1 and len(pieces[0].extent.ranges) == 1:  # nearly always, and this runs for every sample
        return pieces[0].extent.ranges[0][1]
    return sum(piece.extent.length_bytes for piece in pieces)


def reads_of(pieces: list[Piece]) -> Iterator[Read]:
    """Yield the reads that fill a task's buffer, its pieces end to end; ranges that touch are read as one."""
    start = stop = at = filled = 0
    for piece in pieces:
        for offset_bytes, length_bytes in piece.extent.ranges:
            if offset_bytes != stop or stop == start:
                if stop > start:
                    yield Read(start, stop - start, at)
                start, at = offset_bytes, filled
                stop = start
            stop += length_bytes
            filled += length_bytes
    if stop > start:
        yield Read(start, stop - start, at)


def plan_reads(files: Sequence[int], found: Sequence[list[Piece]], block_bytes: int) -> ReadPlan | None:
    """Return what to read for tasks of these files and pieces.

    With `block_bytes` above 1 every read covers whole blocks and the wanted bytes lie inside it; None where a piece
    is made of ranges that lie apart: its bytes would not be contiguous then.
    """
    plan = ReadPlan()
    for file, pieces in zip(files, found, strict=True):
        if not plan.files or plan.files[-1] != file:
            plan.files.append(file)
        spans = _end_to_end(plan, pieces) if block_bytes == 1 else _in_blocks(plan, pieces, block_bytes)
        if spans is None:
            return None
        plan.spans.append(spans)
    return plan


def _end_to_end(plan: ReadPlan, pieces: list[Piece]) -> list[Span]:
    number, base = len(plan.files) - 1, plan.size_bytes
    for read in reads_of(pieces):
        plan.rows.append((number, read.offset_bytes, read.length_bytes, read.length_bytes, base + read.at))
    spans = []
    start = base
    for piece in pieces:
        end = start + bytes_of((piece,))
        spans.append((start, end))
        start = end
    plan.size_bytes = start + -start % PAGE_BYTES
    return spans


def _in_blocks(plan: ReadPlan, pieces: list[Piece], block_bytes: int) -> list[Span] | None:
    number = len(plan.files) - 1
    reads = list(reads_of(pieces))
    starts = []
    for read in reads:
        skew = read.offset_bytes % block_bytes
        room = -(-(skew + read.length_bytes) // block_bytes) * block_bytes
        wanted = skew + read.length_bytes
        plan.rows.append((number, read.offset_bytes - skew, wanted, room, plan.size_bytes))
        starts.append(plan.size_bytes + skew)
        plan.size_bytes += room + -room % PAGE_BYTES
    spans = []
    filled = which = 0
    for piece in pieces:
        length = bytes_of((piece,))
        while which + 1 < len(reads) and filled >= reads[which].at + reads[which].length_bytes:
            which += 1
        if length == 0:
            spans.append((0, 0))
            continue
        within = filled - reads[which].at
        if within + length > reads[which].length_bytes:
            return None
        spans.append((starts[which] + within, starts[which] + within + length))
        filled += length
    return spans
