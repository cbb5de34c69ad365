"""From the ranges that are wanted to the requests that fetch them: neighbours together, long ones in parts."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from stoker.core.errors import StokerError
from stoker.kernels.files import RANGE_FILE, Int64s
from stoker.storage.backends.object_wire import Body, Facts


class Piece(NamedTuple):
    """What range number `row` has of a request: `length_bytes` from `offset_bytes` of the object, to `address`."""

    row: int
    offset_bytes: int
    length_bytes: int
    address: int

    @property
    def end_bytes(self) -> int:
        """Return the offset behind the last byte."""
        return self.offset_bytes + self.length_bytes


@dataclass(slots=True)
class Part:
    """One request, and what came of it. Without pieces it asks for nothing but the object's facts."""

    number: int
    offset_bytes: int
    end_bytes: int
    pieces: list[Piece] = field(default_factory=list)
    facts: Facts | None = None
    error: StokerError | None = None
    started_ns: int = 0
    opened_ns: int = 0
    ended_ns: int = 0

    @property
    def gap_bytes(self) -> int:
        """Return the bytes between the pieces, which nobody wants."""
        return self.end_bytes - self.offset_bytes - sum(piece.length_bytes for piece in self.pieces)


def plan(ranges: Int64s, *, request_bytes: int, coalesce_bytes: int) -> list[Part]:
    """Return the requests for `ranges`, whose ranges of an object stand together.

    Ranges at most `coalesce_bytes` apart travel in one request as long as it is no longer than `request_bytes` and
    at most twice what is wanted of it; one range longer than `request_bytes` travels in equal parts. Ranges that
    overlap are fetched each for itself: what a caller counts as read twice was sent twice.
    """
    rows = [(index, *row) for index, row in enumerate(ranges.tolist())]
    parts: list[Part] = []
    for number, group in groupby(rows, key=itemgetter(1 + RANGE_FILE)):
        pieces = sorted(
            (Piece(index, offset, wanted, address) for index, _, offset, wanted, _, address in group if wanted),
            key=itemgetter(1),
        )
        if not pieces:
            parts.append(Part(number, 0, 0))
        for part in _together(number, pieces, request_bytes, coalesce_bytes):
            parts.extend(_split(part, request_bytes))
    return parts


def _together(number: int, pieces: Sequence[Piece], request_bytes: int, coalesce_bytes: int) -> Iterator[Part]:
    part: Part | None = None
    wanted_bytes = 0
    for piece in pieces:
        if part is not None:
            fetched_bytes = piece.end_bytes - part.offset_bytes
            limit_bytes = min(request_bytes, 2 * (wanted_bytes + piece.length_bytes))
            if 0 <= piece.offset_bytes - part.end_bytes <= coalesce_bytes and fetched_bytes <= limit_bytes:
                part.end_bytes = piece.end_bytes
                part.pieces.append(piece)
                wanted_bytes += piece.length_bytes
                continue
            yield part
        part = Part(number, piece.offset_bytes, piece.end_bytes, [piece])
        wanted_bytes = piece.length_bytes
    if part is not None:
        yield part


def _split(part: Part, request_bytes: int) -> Iterator[Part]:
    """Yield the part, or several of one range that is too long for a request."""
    length_bytes = part.end_bytes - part.offset_bytes
    if length_bytes <= request_bytes:
        yield part
        return
    (piece,) = part.pieces  # only a range by itself can be longer
    for start, end in spans(length_bytes, request_bytes):
        offset_bytes = part.offset_bytes + start
        own = Piece(piece.row, offset_bytes, end - start, piece.address + start)
        yield Part(part.number, offset_bytes, offset_bytes + end - start, [own])


def spans(length_bytes: int, request_bytes: int) -> list[tuple[int, int]]:
    """Return start and end of nearly equal parts of `length_bytes`, none longer than `request_bytes`."""
    count = -(-length_bytes // request_bytes)
    step_bytes = -(-length_bytes // count) if count else 1
    return [(start, min(start + step_bytes, length_bytes)) for start in range(0, length_bytes, step_bytes)]


def deliver(body: Body, pieces: Sequence[Piece]) -> None:
    """Copy what `body` brings to the addresses of `pieces`, which stand in the order of their offsets.

    Pieces that go beyond the object's end are left alone.
    """
    span = body.facts.span
    if len(pieces) == 1 and span == range(pieces[0].offset_bytes, pieces[0].end_bytes):
        address = pieces[0].address
        while chunk := body.next_chunk():  # never more than the span, which is as long as the memory
            # ctypes lends a bytes object without a copy, and drops the GIL while it moves the bytes.
            ctypes.memmove(address, chunk, len(chunk))
            address += len(chunk)
        return
    _scatter(body, [piece for piece in pieces if piece.end_bytes <= span.stop])


def _scatter(body: Body, pieces: list[Piece]) -> None:
    position = body.facts.span.start
    while pieces and (chunk := body.next_chunk()):
        end = position + len(chunk)
        for piece in pieces:
            first, last = max(position, piece.offset_bytes), min(end, piece.end_bytes)
            if first >= end:
                break
            if first < last:
                source = chunk[first - position : last - position]
                ctypes.memmove(piece.address + first - piece.offset_bytes, source, last - first)
        position = end
        pieces = [piece for piece in pieces if piece.end_bytes > position]
