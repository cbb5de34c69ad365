"""Extents of slices on the grid of chunks: pure values. A chunk holds extents in order, none over another.

A slice is immutable bytes written once, known by its id and generation. An extent shows `length` bytes of a slice,
from `offset` on, at `position` in its chunk of 64 MiB. What no extent covers reads as zeros. A later write cuts what
lies under it: so each extent that is left is in use, and the count of references to a slice is the number of extents.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from stoker.core.errors import CorruptError

CHUNK_BYTES: Final = 64 << 20
_EXTENT: Final = struct.Struct(">IQIIIIH")


class Slice(msgspec.Struct, frozen=True):
    """Bytes that were stored: `size_bytes` of them, under this id and generation, as their storage class says."""

    id: int
    generation: int
    size_bytes: int
    storage_class: int = 0


class Extent(msgspec.Struct, frozen=True, order=True):
    """`length` bytes of a slice from `offset` on, at `position` in a chunk."""

    position: int
    id: int
    generation: int
    size_bytes: int
    offset: int
    length: int
    storage_class: int = 0

    @property
    def slice(self) -> Slice:
        """Return the slice that the extent shows a part of."""
        return Slice(self.id, self.generation, self.size_bytes, self.storage_class)

    @property
    def end(self) -> int:
        """Return the position behind the extent."""
        return self.position + self.length


def pack_extents(extents: Sequence[Extent]) -> bytes:
    """Return the extents of a chunk as bytes."""
    return b"".join(_EXTENT.pack(*msgspec.structs.astuple(e)) for e in extents)


def unpack_extents(data: bytes | None) -> list[Extent]:
    """Return the extents of a chunk; none where there is no row. Raises CorruptError for bytes that are none."""
    if data is None:
        return []
    if len(data) % _EXTENT.size:
        raise CorruptError("slices of a chunk are not readable", got=f"{len(data)} bytes")
    return [Extent(*fields) for fields in _EXTENT.iter_unpack(data)]


def part(extent: Extent, start: int, end: int) -> Extent | None:
    """Return what of an extent lies in [start, end), None when nothing does."""
    low, high = max(extent.position, start), min(extent.end, end)
    if low >= high:
        return None
    offset = extent.offset + low - extent.position
    return _showing_from(extent, low, offset, high - low)


def _showing_from(extent: Extent, position: int, offset: int, length: int) -> Extent:
    """Return an extent of the same slice, of other bytes at another place."""
    size_bytes, kind = extent.size_bytes, extent.storage_class
    return Extent(position, extent.id, extent.generation, size_bytes, offset, length, kind)


def without(extents: Sequence[Extent], start: int, end: int) -> list[Extent]:
    """Return the extents with [start, end) cut out of them."""
    kept = []
    for extent in extents:
        if extent.end <= start or extent.position >= end:
            kept.append(extent)
            continue
        pieces = (part(extent, extent.position, start), part(extent, end, extent.end))
        kept += [piece for piece in pieces if piece is not None]
    return kept


def within(extents: Sequence[Extent], start: int, end: int) -> list[Extent]:
    """Return what of the extents lies in [start, end)."""
    return [piece for piece in (part(extent, start, end) for extent in extents) if piece is not None]


def laid(extents: Sequence[Extent], new: Sequence[Extent]) -> list[Extent]:
    """Return the extents with `new` ones over them, in order; neighbours that continue each other become one.

    None of `new` may lie over another. One pass over both: a chunk may have many thousands of each.
    """
    above = sorted(new)
    kept: list[Extent] = []
    place = 0
    for extent in extents:
        while place < len(above) and above[place].end <= extent.position:
            place += 1
        kept += _showing(extent, above, place)
    return _joined(sorted([*kept, *above]))


def _showing(extent: Extent, above: Sequence[Extent], place: int) -> Iterator[Extent]:
    """Return what of an extent shows between those over it, from the one at `place` on."""
    start = extent.position
    while place < len(above) and above[place].position < extent.end:
        piece = part(extent, start, above[place].position)
        if piece is not None:
            yield piece
        start = above[place].end
        place += 1
    piece = part(extent, start, extent.end)
    if piece is not None:
        yield piece


def _joined(extents: Sequence[Extent]) -> list[Extent]:
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.end, last.id, last.generation) == (extent.position, extent.id, extent.generation)
            and last.offset + last.length == extent.offset
        ):
            length = last.length + extent.length
            joined[-1] = _showing_from(last, last.position, last.offset, length)
        else:
            joined.append(extent)
    return joined


def on_grid(offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Return the parts of a file's range by chunk: its index, and the positions [start, end) in it."""
    place, end = offset_bytes, offset_bytes + length_bytes
    while place < end:
        index, start = divmod(place, CHUNK_BYTES)
        stop = min(CHUNK_BYTES, start + end - place)
        yield index, start, stop
        place += stop - start


def spread(data: Slice, offset_bytes: int, start: int = 0, length: int | None = None) -> Iterator[tuple[int, Extent]]:
    """Return the extents that show a slice at `offset_bytes` of a file, each with its chunk's index.

    It is shown whole, or `length` bytes of it from `start` on.
    """
    shown = start
    for index, low, high in on_grid(offset_bytes, data.size_bytes if length is None else length):
        yield index, Extent(low, data.id, data.generation, data.size_bytes, shown, high - low, data.storage_class)
        shown += high - low


def moved(extent: Extent, index: int, shift_bytes: int) -> Iterator[tuple[int, Extent]]:
    """Return an extent of chunk `index` as it shows `shift_bytes` further on in a file, with the chunks' indices."""
    taken = 0
    for at, start, stop in on_grid(index * CHUNK_BYTES + extent.position + shift_bytes, extent.length):
        offset = extent.offset + taken
        yield at, _showing_from(extent, start, offset, stop - start)
        taken += stop - start


def covered(extents: Sequence[Extent]) -> list[tuple[int, int]]:
    """Return where extents, which are in order, have bytes: from where to where, neighbours as one."""
    found: list[tuple[int, int]] = []
    for extent in extents:
        if found and found[-1][1] == extent.position:
            found[-1] = (found[-1][0], extent.end)
        else:
            found.append((extent.position, extent.end))
    return found


def same_ends(old: Sequence[Extent], new: Sequence[Extent]) -> tuple[int, int]:
    """Return how many extents two lists have alike at their beginnings, and behind those at their ends."""
    shorter = min(len(old), len(new))
    head = 0
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return head, tail


def check_extents(extents: Sequence[Extent]) -> str:
    """Return what is wrong with the extents of a chunk, an empty text when nothing is."""
    end = 0
    for extent in extents:
        if extent.length <= 0 or extent.offset + extent.length > extent.size_bytes:
            return f"extent at {extent.position} shows what slice {extent.id} does not have"
        if extent.position < end:
            return f"extent at {extent.position} lies over another"
        end = extent.end
    return f"extents end at {end}, behind the chunk" if end > CHUNK_BYTES else ""
