"""Pages made ready for a checkpoint, a group at a time: hashed, and compressed where that is worth its time."""

from typing import Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from stoker.kernels.checking import xxh3_128_many
from stoker.pages.columns import PageColumns, starts_of

RAW, ZSTD = 0, 1
ALIGN: Final = 64
GROUP_BYTES: Final = 4 << 20
_SAMPLE_BYTES: Final = 1 << 16
_WORTH: Final = 0.7
"""Pages are compressed where a sample of them shrinks below this part of itself. One core compresses about as much in a
second as a disk writes: what shrinks less takes more time than it saves."""
_LEVEL: Final = 1


class Packed(msgspec.Struct, frozen=True):
    """A group of pages ready to be written.

    pieces   what to write, one behind the other
    stored   int64 of shape (n, 3): codec of each page, offset behind the beginning of the pieces, bytes there
    digests  uint8 of shape (n, 16): XXH3-128 of each page
    """

    pages: PageColumns
    pieces: list[bytes | memoryview]
    stored: NDArray[np.int64]
    digests: NDArray[np.uint8]


def pack_group(pages: PageColumns, codec: str) -> Packed:
    """Return the pages as they are to be written: `auto`, `raw` or `zstd`."""
    zstd = zstandard.ZstdCompressor(level=_LEVEL)
    compress = codec == "zstd" or (codec == "auto" and _worth_compressing(pages, zstd))
    pieces, kinds, sizes = _compressed(pages, zstd) if compress else _as_they_are(pages)
    stored = np.stack([kinds, starts_of(sizes + -sizes % ALIGN), sizes], axis=1)
    return Packed(pages, pieces, stored, xxh3_128_many(pages.memory.data, pages.starts, pages.sizes))


_Parts = tuple[list[bytes | memoryview], NDArray[np.int64], NDArray[np.int64]]
"""Pieces; codec and stored bytes of each page."""


def _as_they_are(pages: PageColumns) -> _Parts:
    """Return pages that lie one behind the other as one piece."""
    starts, sizes = pages.starts, pages.sizes
    pads = -sizes % ALIGN
    apart = (pads[:-1] > 0) | (starts[1:] != starts[:-1] + sizes[:-1])
    firsts = np.flatnonzero(np.concatenate([[True], apart]))
    lasts = np.concatenate([firsts[1:], [len(pages)]]) - 1
    pieces: list[bytes | memoryview] = []
    whole = pages.memory.data
    for start, end, pad in zip(
        starts[firsts].tolist(), (starts[lasts] + sizes[lasts]).tolist(), pads[lasts].tolist(), strict=True
    ):
        pieces.append(whole[start:end])
        if pad:
            pieces.append(bytes(pad))
    return pieces, np.full(len(pages), RAW), sizes


def _compressed(pages: PageColumns, zstd: zstandard.ZstdCompressor) -> _Parts:
    pieces: list[bytes | memoryview] = []
    kinds, sizes = np.full(len(pages), RAW), pages.sizes
    for row in range(len(pages)):
        data = pages.data(row).data
        packed = zstd.compress(data)
        if len(packed) < len(data):
            kinds[row], sizes[row] = ZSTD, len(packed)
            data = memoryview(packed)
        pieces.append(data)
        if pad := -len(data) % ALIGN:
            pieces.append(bytes(pad))
    return pieces, kinds, sizes


def _worth_compressing(pages: PageColumns, zstd: zstandard.ZstdCompressor) -> bool:
    """Tell whether a sample shrinks enough: of a few pages spread over the group, of each the middle."""
    chosen = range(0, len(pages), max(1, len(pages) // 16))
    share = _SAMPLE_BYTES // len(chosen)
    parts = []
    for row in chosen:
        data = pages.data(row)
        start = max(0, data.size - share) // 2
        parts.append(data[start : start + share].tobytes())
    sample = b"".join(parts)
    return len(zstd.compress(sample)) < _WORTH * len(sample)
