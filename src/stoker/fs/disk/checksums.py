"""The checksums of cells: computed over the parts of a shard as they come, without joining them."""

import struct
from collections.abc import Iterator, Sequence

from stoker.core.errors import CorruptError
from stoker.fs.disk.interface import Bytes, ShardHeader
from stoker.kernels import checking


def cell_crcs(parts: Sequence[Bytes], cell_bytes: int) -> bytes:
    """Return the CRC-32C of each cell of the bytes that the parts are together, 4 bytes each, highest first."""
    crcs = list(_crcs(parts, cell_bytes))
    return struct.pack(f">{len(crcs)}I", *crcs)


def _crcs(parts: Sequence[Bytes], cell_bytes: int) -> Iterator[int]:
    crc = filled = 0
    for part in parts:
        view = memoryview(part).cast("B")
        start = 0
        while start < len(view):
            piece = view[start : start + cell_bytes - filled]
            crc = checking.crc32c(piece, crc)
            start += len(piece)
            filled += len(piece)
            if filled == cell_bytes:
                yield crc
                crc = filled = 0
    if filled:
        yield crc


def first_bad_cell(header: ShardHeader, crcs: bytes, first_cell: int = 0) -> int | None:
    """Return the first cell whose checksum is not the header's, None when all are; `crcs` begin at `first_cell`."""
    told = header.crcs[4 * first_cell : 4 * first_cell + len(crcs)]
    if told == crcs:
        return None
    return first_cell + next(n for n in range(len(crcs) // 4) if told[4 * n : 4 * n + 4] != crcs[4 * n : 4 * n + 4])


def check_parts(header: ShardHeader, parts: Sequence[Bytes], where: str = "") -> None:
    """Raise CorruptError unless the parts together have the header's size and the checksums of its cells."""
    size_bytes = sum(memoryview(part).nbytes for part in parts)
    place = where or str(header.shard)
    if size_bytes != header.shard_bytes:
        raise CorruptError(
            "bytes of a shard do not have its size", where=place, expected=str(header.shard_bytes), got=str(size_bytes)
        )
    cell = first_bad_cell(header, cell_crcs(parts, header.cell_bytes))
    if cell is not None:
        raise CorruptError("bytes of a shard do not fit its checksum", where=place, got=f"a difference in cell {cell}")
