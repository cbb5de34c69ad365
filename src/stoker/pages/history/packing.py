"""Pages made ready for a checkpoint, a group at a time: hashed, and compressed where that is worth its time."""

from collections.abc import Sequence
from typing import Final

import msgspec
import xxhash
import zstandard

from stoker.pages.images import PageImage

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

    pieces  what to write, one behind the other
    stored  for each page: codec, offset behind the beginning of the pieces, bytes there, XXH3-128 of the page
    """

    images: list[PageImage]
    pieces: list[bytes | memoryview]
    stored: list[tuple[int, int, int, bytes]]


def pack_group(images: list[PageImage], codec: str) -> Packed:
    """Return the pages as they are to be written: `auto`, `raw` or `zstd`."""
    zstd = zstandard.ZstdCompressor(level=_LEVEL)
    compress = codec == "zstd" or (codec == "auto" and _worth_compressing(images, zstd))
    pieces: list[bytes | memoryview] = []
    stored: list[tuple[int, int, int, bytes]] = []
    at = 0
    for image in images:
        plain = image.data.data
        kind, data = RAW, plain
        if compress:
            packed = zstd.compress(plain)
            if len(packed) < len(plain):
                kind, data = ZSTD, memoryview(packed)
        size = len(data)
        stored.append((kind, at, size, xxhash.xxh3_128_digest(plain)))
        pieces.append(data)
        if pad := -size % ALIGN:
            pieces.append(bytes(pad))
        at += size + pad
    return Packed(images, pieces, stored)


def _worth_compressing(images: Sequence[PageImage], zstd: zstandard.ZstdCompressor) -> bool:
    """Tell whether a sample shrinks enough: of a few pages spread over the group, of each the middle."""
    chosen = images[:: max(1, len(images) // 16)]
    share = _SAMPLE_BYTES // len(chosen)
    parts = []
    for image in chosen:
        start = max(0, image.size_bytes - share) // 2
        parts.append(image.data[start : start + share].tobytes())
    sample = b"".join(parts)
    return len(zstd.compress(sample)) < _WORTH * len(sample)
