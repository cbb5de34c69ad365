"""Tiles: how pages lie in the memory of a device, and how their changes travel.

A page begins at a line of 64 bytes and is cut into tiles of 64 lines; the last tile may be short. Kernels work on the
tiles of many pages at once. What changed in T tiles is one run of bytes, so that it crosses a bus in one copy:

| bytes | what |
|---|---|
| 8 T | a word a tile: its dirty lines, bit i = line i |
| 8 D | a word a dirty line, in order: its changed bytes, bit i = byte i |
| C | the changed bytes, in order |

The words of one page's tiles, its lines' words and its bytes, one behind the other, are the page's TWO_LEVEL payload
as the log has it (`stoker.pages.frames`).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels.deltas import two_level_changed
from stoker.pages.errors import InvalidDelta

LINE_BYTES: Final = 64
TILE_LINES: Final = 64
TILE_BYTES: Final = LINE_BYTES * TILE_LINES
Bytes = NDArray[np.uint8]


class TileTable:
    """Where the tiles of some pages lie in one slab.

    starts      int64 of shape (tiles,): first line of each tile, in lines from the slab's start
    sizes       int64 of shape (tiles,): bytes of the page in each tile, 1 to 4096
    firsts      int64 of shape (pages + 1,): index of each page's first tile
    page_bytes  of each page
    uploaded    the two arrays as tensors, by device; kept by the kernels
    """

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        """Take offset and size of each page, both in bytes, offsets at multiples of 64."""
        offsets = np.array([offset for offset, _ in places], np.int64)
        self.page_bytes = np.array([size for _, size in places], np.int64)
        assert not (offsets % LINE_BYTES).any()
        assert (self.page_bytes > 0).all()
        counts = -(-self.page_bytes // TILE_BYTES)
        self.firsts = np.concatenate(([0], np.cumsum(counts)))
        within = np.arange(self.firsts[-1]) - np.repeat(self.firsts[:-1], counts)
        self.starts = np.repeat(offsets // LINE_BYTES, counts) + within * TILE_LINES
        self.sizes = np.minimum(TILE_BYTES, np.repeat(self.page_bytes, counts) - within * TILE_BYTES)
        self.uploaded: dict[str, Any] = {}

    def __len__(self) -> int:
        """Return how many tiles there are."""
        return len(self.starts)

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self.page_bytes)

    @property
    def whole(self) -> bool:
        """Tell whether no tile is short."""
        return bool((self.sizes == TILE_BYTES).all())

    @property
    def contiguous(self) -> bool:
        """Tell whether the tiles lie one behind the other."""
        return bool((np.diff(self.starts) == TILE_LINES).all())


class Columns(msgspec.Struct, frozen=True):
    """What changed in the tiles of a table, as the table above says; `blob` is an array or a tensor of bytes."""

    blob: Any
    dirty_lines: int
    changed_bytes: int


def columns_bytes(tiles: int, dirty_lines: int, changed_bytes: int) -> int:
    """Return the bytes of columns."""
    return 8 * tiles + 8 * dirty_lines + changed_bytes


def parts(blob: Any, tiles: int, dirty_lines: int) -> tuple[Any, Any, Any]:
    """Return words of tiles, words of lines and changed bytes of a blob, all as bytes."""
    masks_end = 8 * tiles + 8 * dirty_lines
    return blob[: 8 * tiles], blob[8 * tiles : masks_end], blob[masks_end:]


def payloads_of(table: TileTable, columns: Columns) -> list[bytes]:
    """Return each page's payload, empty where nothing changed; the blob lies on the host."""
    words, masks, values = parts(columns.blob, len(table), columns.dirty_lines)
    lines_by_tile = np.bitwise_count(words.view(np.uint64)).astype(np.int64)
    line_ends = np.concatenate(([0], np.cumsum(lines_by_tile)))[table.firsts]
    byte_ends = np.concatenate(([0], np.cumsum(np.bitwise_count(masks.view(np.uint64)), dtype=np.int64)))[line_ends]
    assert line_ends[-1] == columns.dirty_lines
    assert byte_ends[-1] == values.size
    found = [b""] * table.pages
    for page in np.flatnonzero(np.diff(byte_ends)).tolist():
        found[page] = b"".join(
            (
                words[8 * table.firsts[page] : 8 * table.firsts[page + 1]].tobytes(),
                masks[8 * line_ends[page] : 8 * line_ends[page + 1]].tobytes(),
                values[byte_ends[page] : byte_ends[page + 1]].tobytes(),
            )
        )
    return found


def columns_of(table: TileTable, payloads: Sequence[bytes | memoryview]) -> Columns:
    """Return the columns that the pages' payloads make, on the host.

    Raises InvalidDelta for a payload that does not fit its page: a kernel must never be led outside of it.
    """
    words, masks, values = [], [], []
    for page, payload in enumerate(payloads):
        words_bytes = int(8 * (table.firsts[page + 1] - table.firsts[page]))
        try:
            two_level_changed(int(table.page_bytes[page]), payload)
        except CorruptError as error:
            raise InvalidDelta("delta does not fit its page", got=str(error)) from error
        data = np.frombuffer(payload, np.uint8) if len(payload) else np.zeros(words_bytes, np.uint8)
        dirty_lines = int(np.bitwise_count(data[:words_bytes]).sum())
        values_at = words_bytes + 8 * dirty_lines
        words.append(data[:words_bytes])
        masks.append(data[words_bytes:values_at])
        values.append(data[values_at:])
    blob = np.concatenate([*words, *masks, *values]) if words else np.empty(0, np.uint8)
    return Columns(blob, sum(part.size for part in masks) // 8, sum(part.size for part in values))
