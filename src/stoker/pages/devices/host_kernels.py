"""The kernels for memory of the host: those of `stoker.kernels`, page by page, without the way over a device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.kernels.checking import xxh3_64
from stoker.kernels.deltas import two_level_apply, two_level_diff, two_level_diff_update
from stoker.kernels.wiring import diff_elements
from stoker.pages.devices.tiles import (
    LINE_BYTES,
    TILE_BYTES,
    Bytes,
    Columns,
    TileTable,
    columns_of,
    payloads_of,
)


class HostKernels:
    """See `TileKernels`; the tensors lie on the host."""

    name = "host"

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def _columns(self, table: TileTable, payloads: Sequence[bytes]) -> Columns:
        made = columns_of(table, payloads)
        return Columns(self._torch.from_numpy(made.blob), made.dirty_lines, made.changed_bytes)

    def compare(self, base: Any, fresh: Any, table: TileTable, *, update: bool = False) -> Columns:
        """Return what leads from `base` to `fresh`."""
        diff = two_level_diff_update if update else two_level_diff
        pairs = zip(_pages(base, table), _pages(fresh, table), strict=True)
        return self._columns(table, [diff(was.data, now.data)[0] for was, now in pairs])

    def apply(self, targets: Sequence[Any], table: TileTable, columns: Columns) -> None:
        """Write what changed into each of the slabs."""
        on_host = Columns(columns.blob.numpy(), columns.dirty_lines, columns.changed_bytes)
        payloads = payloads_of(table, on_host)
        for target in targets:
            for page, payload in zip(_pages(target, table), payloads, strict=True):
                two_level_apply(page.data, payload)

    def cast(self, masters: Sequence[Any], slab: Any, table: TileTable) -> Columns:
        """Round float32 values to bfloat16 into the pages, and return what that changed."""
        payloads = []
        for page, master in zip(_pages(slab, table), masters, strict=True):
            rounded = bfloat16_bits(master.numpy())
            payloads.append(two_level_diff_update(page.data, rounded.view(np.uint8).data)[0])
        return self._columns(table, payloads)

    def gaps(self, base: Any, fresh: Any, width: int) -> tuple[Any, Any, Any]:
        """Compare two flat tensors as elements of `width` bytes: gaps, old values and new ones."""
        was, now = base.numpy(), fresh.numpy()
        found = diff_elements(was.data, now.data, width, was.size // width)
        made = (found.gaps, found.base_values, found.fresh_values)
        gaps, old, new = (self._torch.from_numpy(np.asarray(one).copy()) for one in made)
        return gaps, old, new

    def hashes(self, slab: Any, table: TileTable) -> Any:
        """Return XXH3-64 of every tile, padded with zeros."""
        memory, padded = slab.numpy(), np.zeros(TILE_BYTES, np.uint8)
        found = np.empty(len(table), np.uint64)
        for tile, (start, size) in enumerate(zip(table.starts.tolist(), table.sizes.tolist(), strict=True)):
            padded[:size], padded[size:] = memory[start * LINE_BYTES : start * LINE_BYTES + size], 0
            found[tile] = xxh3_64(padded.data)
        return self._torch.from_numpy(found.view(np.int64))

    def copy(self, target: Any, target_table: TileTable, source: Any, source_table: TileTable) -> None:
        """Copy pages."""
        for to, page in zip(_pages(target, target_table), _pages(source, source_table), strict=True):
            to[:] = page

    def zero(self, slab: Any, table: TileTable) -> None:
        """Fill pages with zeros."""
        for page in _pages(slab, table):
            page[:] = 0

    def equal(self, left: Any, right: Any, table: TileTable) -> Any:
        """Tell of each page whether it is equal in both slabs."""
        pairs = zip(_pages(left, table), _pages(right, table), strict=True)
        return self._torch.tensor([bool(np.array_equal(one, other)) for one, other in pairs], dtype=self._torch.bool)


def _pages(slab: Any, table: TileTable) -> list[Bytes]:
    memory = slab.numpy()
    starts = table.starts[table.firsts[:-1]] * LINE_BYTES
    return [
        memory[start : start + size] for start, size in zip(starts.tolist(), table.page_bytes.tolist(), strict=True)
    ]


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return float32 values rounded to bfloat16, nearest even, as 16-bit patterns; every NaN becomes 0x7FC0."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded
