"""The kernels in Triton: a batch takes a fixed number of launches, however many pages it has.

`compare` is two launches with a running sum over the tiles between them, and one wait for that stream alone, to learn
how many bytes the result has: its memory is exact.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from stoker.pages.devices import triton_kernels as launched
from stoker.pages.devices.eager import ELEMENT_BITS, EagerKernels, gap_bytes, pages_without
from stoker.pages.devices.tiles import TILE_BYTES, TILE_LINES, Columns, TileTable, columns_bytes, parts
from stoker.pages.devices.xxh3_tiles import Xxh3Tables, xxh3_of_accumulators

_BLOCK: Final = 1024
_TILES_OF_PROGRAM: Final = 16


class TritonKernels:
    """See `TileKernels`."""

    name = "triton"

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._eager = EagerKernels(torch)
        self._xxh3 = Xxh3Tables()

    def compare(self, base: Any, fresh: Any, table: TileTable, *, update: bool = False) -> Columns:
        """Return what leads from `base` to `fresh`."""
        starts, sizes = self._eager.placed(table, base.device)
        found = self._room(table, base.device)
        launched.compare_tiles[(len(table),)](
            _words(self._torch, base), _words(self._torch, fresh), starts, sizes, *found, UPDATE=update
        )
        return self._emit(fresh, table, *found)

    def _room(self, table: TileTable, device: Any) -> tuple[Any, Any, Any, Any]:
        """Return memory for the masks of all lines, the bitmaps and the two counts of all tiles."""
        tiles = len(table)
        rows = self._torch.empty((tiles, TILE_LINES + 3), dtype=self._torch.int64, device=device).view(-1)
        ends = [tiles * (TILE_LINES + extra) for extra in range(4)]
        return rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] : ends[2]], rows[ends[2] : ends[3]]

    def _emit(self, fresh: Any, table: TileTable, masks: Any, words: Any, dirty: Any, changed: Any) -> Columns:
        torch, tiles = self._torch, len(table)
        ends = torch.zeros((2, tiles + 1), dtype=torch.int64, device=fresh.device)
        torch.cumsum(torch.stack((dirty, changed)), 1, out=ends[:, 1:])
        dirty_lines, changed_bytes = ends[:, -1].tolist()
        blob = torch.empty(columns_bytes(tiles, dirty_lines, changed_bytes), dtype=torch.uint8, device=fresh.device)
        out_words, out_masks, out_values = parts(blob, tiles, dirty_lines)
        out_words.view(torch.int64).copy_(words)
        if changed_bytes:
            starts, _ = self._eager.placed(table, fresh.device)
            launched.emit_tiles[(tiles,)](
                fresh, starts, masks, ends[0], ends[1], out_masks.view(torch.int64), out_values
            )
        return Columns(blob, dirty_lines, changed_bytes)

    def apply(self, targets: Sequence[Any], table: TileTable, columns: Columns) -> None:
        """Write what changed into each of the slabs."""
        torch = self._torch
        if not columns.changed_bytes:
            return
        words, masks, values = parts(columns.blob, len(table), columns.dirty_lines)
        words, masks = words.view(torch.int64), masks.view(torch.int64)
        line_ends, byte_ends = _ends(torch, _bits_set(words)), _ends(torch, _bits_set(masks))
        byte_ends = byte_ends[line_ends]
        for target in targets:
            starts, _ = self._eager.placed(table, target.device)
            launched.apply_tiles[(len(table),)](target, starts, words, line_ends, byte_ends, masks, values)

    def cast(self, masters: Sequence[Any], slab: Any, table: TileTable) -> Columns:
        """Round float32 values to bfloat16 into the pages, and return what that changed."""
        torch = self._torch
        flat = [master.contiguous().view(torch.int32) for master in masters]
        # Masters lie anywhere: a tile's values are found by their distance from the first master.
        distances = np.array([(one.data_ptr() - flat[0].data_ptr()) // 4 for one in flat], np.int64)
        within = np.arange(len(table)) - np.repeat(table.firsts[:-1], np.diff(table.firsts))
        offsets = np.repeat(distances, np.diff(table.firsts)) + within * (TILE_BYTES // 2)
        starts, sizes = self._eager.placed(table, slab.device)
        found = self._room(table, slab.device)
        on_device = torch.from_numpy(offsets).to(slab.device)
        launched.cast_tiles[(len(table),)](flat[0], on_device, slab.view(torch.int16), starts, sizes, *found)
        return self._emit(slab, table, *found)

    def gaps(self, base: Any, fresh: Any, width: int) -> tuple[Any, Any, Any]:
        """Compare two flat tensors as elements of `width` bytes: gaps, old values and new ones."""
        torch = self._torch
        kind = getattr(torch, ELEMENT_BITS[width])
        was, now = base.view(kind), fresh.view(kind)
        blocks = max(1, -(-was.numel() // _BLOCK))
        counts = torch.empty(blocks, dtype=torch.int64, device=base.device)
        launched.count_elements[(blocks,)](was, now, was.numel(), counts, BLOCK=_BLOCK)
        ends = _ends(torch, counts)
        total = int(ends[-1])
        places = torch.empty(total, dtype=torch.int64, device=base.device)
        values = torch.empty((2, total), dtype=kind, device=base.device)
        if total:
            launched.compact_elements[(blocks,)](
                was, now, was.numel(), ends, places, values[0], values[1], BLOCK=_BLOCK
            )
        return gap_bytes(torch, places), values[0].view(torch.uint8), values[1].view(torch.uint8)

    def hashes(self, slab: Any, table: TileTable) -> Any:
        """Return XXH3-64 of every tile, padded with zeros."""
        torch = self._torch
        starts, sizes = self._eager.placed(table, slab.device)
        keys, scramble, initial = self._xxh3.tensors(torch, slab.device)
        sums = torch.empty((len(table), 8), dtype=torch.int64, device=slab.device)
        programs = -(-len(table) // _TILES_OF_PROGRAM)
        launched.hash_tiles[(programs,)](
            _words(torch, slab), starts, sizes, len(table), keys, scramble, initial, sums,
            self._xxh3.scramble_prime, TILES=_TILES_OF_PROGRAM,
        )  # fmt: skip
        return xxh3_of_accumulators(torch, sums, self._xxh3)

    def copy(self, target: Any, target_table: TileTable, source: Any, source_table: TileTable) -> None:
        """Copy pages."""
        to, sizes = self._eager.placed(target_table, target.device)
        start, _ = self._eager.placed(source_table, source.device)
        words = (_words(self._torch, target), _words(self._torch, source))
        launched.copy_tiles[(len(target_table),)](words[0], to, words[1], start, sizes)

    def zero(self, slab: Any, table: TileTable) -> None:
        """Fill pages with zeros."""
        launched.zero_tiles[(len(table),)](_words(self._torch, slab), *self._eager.placed(table, slab.device))

    def equal(self, left: Any, right: Any, table: TileTable) -> Any:
        """Tell of each page whether it is equal in both slabs."""
        starts, sizes = self._eager.placed(table, left.device)
        flags = self._torch.empty(len(table), dtype=self._torch.int64, device=left.device)
        words = (_words(self._torch, left), _words(self._torch, right))
        launched.unequal_tiles[(len(table),)](*words, starts, sizes, flags)
        return pages_without(self._torch, flags, table)


def _words(torch: Any, slab: Any) -> Any:
    return slab.view(torch.int64)


def _bits_set(words: Any) -> Any:
    """Return how many bits are set in each word of 64 bits."""
    pairs = words - (words >> 1 & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    eights = fours + (fours >> 4) & 0x0F0F0F0F0F0F0F0F
    return eights * 0x0101010101010101 >> 56 & 0xFF


def _ends(torch: Any, counts: Any) -> Any:
    """Return where each part begins, and where the last one ends."""
    ends = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=ends[1:])
    return ends
