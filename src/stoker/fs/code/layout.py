"""Where the bytes of a slice lie in its shards: pure functions of sizes, from slice to shards and back.

A slice is dealt in cells over the k data shards, round and round: a stripe is one cell of each. So a small read
touches one shard, and a long one all of them. The last stripe is short: its cells are the k-th part of what is left,
rounded up to 64 bytes. Zeros that fill a stripe up take part in the arithmetic and are not stored: a data shard ends
with its last byte, a parity shard with the longest data shard. Byte `o` of every shard belongs to the same code word,
so any range of a lost shard comes from the same range of k others. With k = 1 all shards are equal: copies.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.fs.code.codec import Bytes, Codec

TAIL_ALIGN_BYTES: Final = 64


class Span(msgspec.Struct, frozen=True):
    """`length` bytes of shard `index` from `offset` on, which are the slice's from `at` on."""

    index: int
    offset: int
    length: int
    at: int


class Layout(msgspec.Struct, frozen=True):
    """How a slice of `slice_bytes` lies in k data shards and m parity shards, in cells of `cell_bytes`."""

    k: int
    m: int
    cell_bytes: int
    slice_bytes: int

    @property
    def stripe_bytes(self) -> int:
        """Bytes of the slice in a whole stripe."""
        return self.k * self.cell_bytes

    @property
    def whole_bytes(self) -> int:
        """Bytes of each shard in whole stripes: where the cells of the short one begin."""
        return self.slice_bytes // self.stripe_bytes * self.cell_bytes

    @property
    def tail_cell_bytes(self) -> int:
        """Bytes of a cell of the short last stripe; 0 when there is none."""
        share = -(-(self.slice_bytes % self.stripe_bytes) // self.k)
        return min(-(-share // TAIL_ALIGN_BYTES) * TAIL_ALIGN_BYTES, self.cell_bytes)

    def shard_bytes(self, index: int) -> int:
        """Return how long a shard is."""
        rest, cell = self.slice_bytes % self.stripe_bytes, self.tail_cell_bytes
        before = index * cell if index < self.k else 0
        return self.whole_bytes + max(min(rest - before, cell), 0)

    def spans(self, offset: int, length: int) -> Iterator[Span]:
        """Return where a range of the slice lies, in its order. Raises UsageError for one that leaves the slice."""
        self._check(offset, length)
        whole_end, end = self.whole_bytes * self.k, offset + length
        while offset < end:
            cell = self.cell_bytes if offset < whole_end else self.tail_cell_bytes
            base = offset // self.stripe_bytes * self.stripe_bytes
            index, within = divmod(offset - base, cell)
            step = min(cell - within, end - offset)
            yield Span(index if self.k > 1 else 0, base // self.k + within, step, offset)
            offset += step

    def copy_spans(self, index: int, offset: int, length: int) -> list[Span]:
        """Return where a range of the slice lies in a copy, which is the slice itself. Raises the same."""
        self._check(offset, length)
        return [Span(index, offset, length, offset)] if length else []

    def _check(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.slice_bytes:
            got = f"{length} bytes from {offset} on"
            raise UsageError("range leaves the slice", expected=f"within {self.slice_bytes} bytes", got=got)

    def slice_spans(self, index: int, offset: int, length: int) -> Iterator[Span]:
        """Return which bytes of the slice a range of a data shard is, in the shard's order.

        Raises UsageError for another shard, or a range that leaves it.
        """
        if not (0 <= index < self.k and 0 <= offset <= offset + length <= self.shard_bytes(index)):
            raise UsageError("range leaves the shard", got=f"{length} bytes from {offset} on in shard {index}")
        end = offset + length
        while offset < end:
            row, within = divmod(offset, self.cell_bytes)
            cell = self.cell_bytes if offset < self.whole_bytes else self.tail_cell_bytes
            step = min(cell - within, end - offset)
            yield Span(index, offset, step, row * self.stripe_bytes + index * cell + within)
            offset += step

    def ranges(self, offset: int, length: int) -> dict[int, list[tuple[int, int]]]:
        """Return for each data shard that holds some of a range of the slice its ranges (offset, length), joined."""
        return joined_ranges(self.spans(offset, length))

    def stripes(self) -> Iterator[tuple[int, int, int]]:
        """Return each stripe: where it begins in the slice and in every shard, and the bytes of a cell."""
        for row in range(self.slice_bytes // self.stripe_bytes):
            yield row * self.stripe_bytes, row * self.cell_bytes, self.cell_bytes
        if self.tail_cell_bytes:
            yield self.whole_bytes * self.k, self.whole_bytes, self.tail_cell_bytes


def joined_ranges(spans: Iterable[Span]) -> dict[int, list[tuple[int, int]]]:
    """Return the ranges (offset, length) of spans by shard; those that continue each other are one."""
    found: dict[int, list[tuple[int, int]]] = {}
    for span in spans:
        ranges = found.setdefault(span.index, [])
        if ranges and sum(ranges[-1]) == span.offset:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + span.length)
        else:
            ranges.append((span.offset, span.length))
    return found


class Joined:
    """Buffers one behind the other; a range of them is a view, a copy only where it crosses from one to the next."""

    def __init__(self, parts: Sequence[Bytes]) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts if len(part)]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))
        self._at = 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all parts."""
        return self._starts[-1]

    def view(self, offset: int, length: int) -> memoryview:
        """Return a range; it lies within the parts. Quick where ranges are asked for in their order."""
        pieces = list(self._pieces(offset, length))
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def _pieces(self, offset: int, length: int) -> Iterator[memoryview]:
        if self._starts[self._at] > offset:
            self._at = 0
        end = offset + length
        while offset < end:
            while self._starts[self._at + 1] <= offset:
                self._at += 1
            start = offset - self._starts[self._at]
            piece = self._parts[self._at][start : start + end - offset]
            yield piece
            offset += len(piece)


def encode_slice(layout: Layout, parts: Sequence[Bytes], codec: Codec | None = None) -> list[list[Bytes]]:
    """Return the bytes of every shard in pieces: views of the parts for data, fresh memory for parity.

    `codec` may be None for copies. Raises UsageError for parts of another size.
    """
    joined = Joined(parts)
    if joined.total_bytes != layout.slice_bytes:
        got = f"{joined.total_bytes} bytes"
        raise UsageError("parts are not the slice", expected=f"{layout.slice_bytes} bytes", got=got)
    if layout.k == 1:
        return [[part for part in parts if len(part)] for _ in range(1 + layout.m)]
    coder = codec or Codec(layout.k, layout.m)
    parity = [memoryview(bytearray(layout.shard_bytes(layout.k))) for _ in range(layout.m)]
    shards: list[list[Bytes]] = [[] for _ in range(layout.k)]
    for at, offset, cell in layout.stripes():
        room = min(cell, layout.slice_bytes - at)
        cells = [joined.view(start, _left(layout, start, cell)) for start in range(at, at + layout.k * cell, cell)]
        for shard, data in zip(shards, cells, strict=True):
            if len(data):
                shard.append(data)
        coder.encode([filled(data, room) for data in cells], [memory[offset : offset + room] for memory in parity])
    shards.extend([memory] for memory in parity)
    return shards


def _left(layout: Layout, start: int, cell: int) -> int:
    return max(min(cell, layout.slice_bytes - start), 0)


def filled(data: Bytes, length: int) -> Bytes:
    """Return data with zeros behind it up to a length; itself when it has that."""
    if len(data) == length:
        return data
    whole = bytearray(length)
    whole[: len(data)] = data
    return whole


def clipped(layout: Layout, index: int, offset: int, length: int) -> int:
    """Return how many bytes of a range a shard holds; the rest are zeros."""
    return max(min(length, layout.shard_bytes(index) - offset), 0)


def rebuild_range(
    layout: Layout, codec: Codec, have: dict[int, Bytes], lost: Sequence[int], length: int
) -> dict[int, bytearray]:  # fmt: skip
    """Return `length` bytes of each lost shard, from those of k others at the same offset; short ones end in zeros."""
    chosen = sorted(have)[: layout.k]
    targets = {index: bytearray(length) for index in lost}
    codec.rebuild({index: filled(have[index], length) for index in chosen}, targets)
    return targets
