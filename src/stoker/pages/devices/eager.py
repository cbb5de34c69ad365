"""The kernels as operations of torch, for any device that torch knows."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from stoker.pages.devices.tiles import LINE_BYTES, TILE_BYTES, TILE_LINES, Columns, TileTable, parts
from stoker.pages.devices.xxh3_tiles import Xxh3Tables, xxh3_of_accumulators

_GATHER: Final = 0x0102040810204080
"""Times a word whose bytes are 0 or 1, it has their bits in its highest byte."""
_ONES: Final = 0x0101010101010101
_SKIP: Final = 255
ELEMENT_BITS: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
"""Type of torch for elements of so many bytes, compared as bits."""


class EagerKernels:
    """See `TileKernels`. Temporary memory is about three times the bytes of the pages."""

    name = "eager"

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._xxh3 = Xxh3Tables()

    # -- the memory of tiles -------------------------------------------------------------------------------------

    def placed(self, table: TileTable, device: Any) -> tuple[Any, Any]:
        """Return the table's starts and sizes as tensors on a device, uploaded once."""
        key = str(device)
        if key not in table.uploaded:
            pair = np.stack((table.starts, table.sizes))
            table.uploaded[key] = self._torch.from_numpy(pair).to(device)
        both = table.uploaded[key]
        return both[0], both[1]

    def _lines(self, table: TileTable, device: Any) -> Any:
        """Return the index of every line, shape (tiles, 64); lines behind a short tile repeat its last one."""
        torch = self._torch
        starts, sizes = self.placed(table, device)
        within = torch.arange(TILE_LINES, device=device)
        last = (sizes + LINE_BYTES - 1) // LINE_BYTES - 1
        return starts[:, None] + torch.minimum(within[None, :], last[:, None])

    def _tiles(self, slab: Any, table: TileTable) -> Any:
        """Return the tiles' bytes, shape (tiles, 64, 64): a view where they lie one behind the other."""
        first = int(table.starts[0]) * LINE_BYTES
        if table.contiguous and first + len(table) * TILE_BYTES <= slab.numel():
            return slab[first : first + len(table) * TILE_BYTES].view(-1, TILE_LINES, LINE_BYTES)
        return slab.view(-1, LINE_BYTES)[self._lines(table, slab.device)]

    def _inside(self, table: TileTable, device: Any) -> Any:
        """Return a flag for each byte of the tiles that belongs to its page."""
        _, sizes = self.placed(table, device)
        place = self._torch.arange(TILE_BYTES, device=device)
        return (place[None, :] < sizes[:, None]).view(-1, TILE_LINES, LINE_BYTES)

    def _bits(self, flags: Any) -> Any:
        """Pack the last 64 flags into one word each."""
        words = flags.view(self._torch.int64) * _GATHER >> 56 & 0xFF
        shifts = self._torch.arange(0, 64, 8, device=flags.device)
        return (words << shifts).sum(-1)

    def _flags(self, words: Any) -> Any:
        """Unpack words into 64 flags each."""
        places = self._torch.arange(64, device=words.device)
        return (words[..., None] >> places & 1).bool()

    # -- K1, K2 --------------------------------------------------------------------------------------------------

    def compare(self, base: Any, fresh: Any, table: TileTable, *, update: bool = False) -> Columns:
        """Return what leads from `base` to `fresh`."""
        now = self._tiles(fresh, table)
        columns, dirty = self._emit(self._tiles(base, table), now, table)
        if update:
            self._put_lines(base, table, dirty, now)
        return columns

    def _emit(self, was: Any, now: Any, table: TileTable) -> tuple[Columns, Any]:
        torch = self._torch
        differs = was != now
        if not table.whole:
            differs &= self._inside(table, was.device)
        masks = self._bits(differs)
        dirty = masks != 0
        lines, values = masks[dirty], now[differs]
        pieces = (self._bits(dirty).view(torch.uint8), lines.view(torch.uint8), values)
        return Columns(torch.cat(pieces), lines.numel(), values.numel()), dirty

    def _put_lines(self, slab: Any, table: TileTable, dirty: Any, tiles: Any) -> None:
        """Write whole dirty lines; what lies behind a page in its last line is nobody's."""
        slab.view(-1, LINE_BYTES)[self._lines(table, slab.device)[dirty]] = tiles[dirty]

    def apply(self, targets: Sequence[Any], table: TileTable, columns: Columns) -> None:
        """Write what changed into each of the slabs."""
        torch = self._torch
        words, masks, values = parts(columns.blob, len(table), columns.dirty_lines)
        dirty = self._flags(words.view(torch.int64))
        changed = self._flags(masks.view(torch.int64))
        lines = self._lines(table, words.device)[dirty]
        for target in targets:
            rows = target.view(-1, LINE_BYTES)[lines]
            rows[changed] = values
            target.view(-1, LINE_BYTES)[lines] = rows

    # -- the cast ------------------------------------------------------------------------------------------------

    def cast(self, masters: Sequence[Any], slab: Any, table: TileTable) -> Columns:
        """Round float32 values to bfloat16 into the pages, and return what that changed."""
        torch = self._torch
        rounded = torch.zeros(len(table) * TILE_BYTES // 2, dtype=torch.int16, device=slab.device)
        for page, master in enumerate(masters):
            start = int(table.firsts[page]) * (TILE_BYTES // 2)
            rounded[start : start + master.numel()] = bfloat16_bits(torch, master)
        now = rounded.view(torch.uint8).view(-1, TILE_LINES, LINE_BYTES)
        columns, dirty = self._emit(self._tiles(slab, table), now, table)
        self._put_lines(slab, table, dirty, now)
        return columns

    # -- K3 ------------------------------------------------------------------------------------------------------

    def gaps(self, base: Any, fresh: Any, width: int) -> tuple[Any, Any, Any]:
        """Compare two flat tensors as elements of `width` bytes: gaps, old values and new ones."""
        torch = self._torch
        kind = getattr(torch, ELEMENT_BITS[width])
        was, now = base.view(kind), fresh.view(kind)
        places = (was != now).nonzero()[:, 0]
        return gap_bytes(torch, places), was[places].view(torch.uint8), now[places].view(torch.uint8)

    # -- K4, K5 --------------------------------------------------------------------------------------------------

    def hashes(self, slab: Any, table: TileTable) -> Any:
        """Return XXH3-64 of every tile, padded with zeros."""
        torch = self._torch
        tiles = self._tiles(slab, table)
        if not table.whole:
            tiles = tiles * self._inside(table, slab.device)
        stripes = tiles.contiguous().view(torch.int64)
        keys, scramble, initial = self._xxh3.tensors(torch, slab.device)
        swap = torch.arange(8, device=slab.device) ^ 1
        sums = initial.expand(len(table), 8).clone()
        for stripe in range(TILE_LINES):
            keyed = stripes[:, stripe] ^ keys[stripe]
            sums += stripes[:, stripe, swap] + (keyed & 0xFFFFFFFF) * (keyed >> 32 & 0xFFFFFFFF)
            if stripe % 16 == 15 and stripe != TILE_LINES - 1:
                sums = (sums ^ (sums >> 47 & 0x1FFFF) ^ scramble) * self._xxh3.scramble_prime
        return xxh3_of_accumulators(torch, sums, self._xxh3)

    def copy(self, target: Any, target_table: TileTable, source: Any, source_table: TileTable) -> None:
        """Copy pages."""
        lines = self._lines(target_table, target.device)
        target.view(-1, LINE_BYTES)[lines] = source.view(-1, LINE_BYTES)[self._lines(source_table, source.device)]

    def zero(self, slab: Any, table: TileTable) -> None:
        """Fill pages with zeros."""
        slab.view(-1, LINE_BYTES)[self._lines(table, slab.device)] = 0

    def equal(self, left: Any, right: Any, table: TileTable) -> Any:
        """Tell of each page whether it is equal in both slabs."""
        differs = self._tiles(left, table) != self._tiles(right, table)
        if not table.whole:
            differs &= self._inside(table, left.device)
        return pages_without(self._torch, differs.flatten(1).any(1), table)


def pages_without(torch: Any, flags: Any, table: TileTable) -> Any:
    """Return of each page whether none of its tiles is flagged."""
    ends = torch.zeros(len(table) + 1, dtype=torch.int64, device=flags.device)
    torch.cumsum(flags, 0, out=ends[1:])
    firsts = torch.from_numpy(table.firsts).to(flags.device)
    return ends[firsts[1:]] == ends[firsts[:-1]]


def bfloat16_bits(torch: Any, values: Any) -> Any:
    """Return float32 values rounded to bfloat16, nearest even, as int16; every NaN becomes 0x7FC0."""
    bits = values.contiguous().view(torch.int32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    return torch.where(values.isnan(), 0x7FC0, rounded).to(torch.int16)


def gap_bytes(torch: Any, places: Any) -> Any:
    """Return sorted places as gaps, as `stoker.kernels.wiring` has them: 255 skips 255."""
    before = torch.diff(places, prepend=places.new_full((1,), -1)) - 1
    skips = before // _SKIP
    ends = torch.cumsum(skips + 1, 0)
    made = places.new_full((int(ends[-1]) if places.numel() else 0,), _SKIP, dtype=torch.uint8)
    made[ends - 1] = (before % _SKIP).to(torch.uint8)
    return made
