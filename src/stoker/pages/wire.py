"""Differences of typed images for disk and network: the smallest of several codecs, checked against the wrong base.

A blob is a 64-byte little-endian header and two sections, see `stoker.pages.wire_codecs`:

| offset | type | field |
|---|---|---|
| 0 | 4 bytes | magic `SKWD` |
| 4 | u8 | version, 1 |
| 5 | u8 | codec |
| 6 | u8 | bytes of an element: 1, 2, 4, 8 |
| 7 | u8 | zero |
| 8 | u64 | bytes of the image |
| 16 | u64 | elements that differ |
| 24 | u64 | XXH3-64 of the old image |
| 32 | u64 | XXH3-64 of the new image |
| 40 | u64 | bytes of the places |
| 48 | u64 | bytes of the codes |
| 56 | u32 | zero |
| 60 | u32 | CRC-32C of everything else |

Which codec: the share of elements that differ falls out of the compare; small images are written in every way, large
ones by that share and a sample of 64 KiB. Below 3 % gain the image goes as it is.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.kernels.checking import Readable, copy_xxh3, crc32c, xxh3_64
from stoker.kernels.wiring import WIDTHS
from stoker.pages.delta_payloads import Image, bytes_of, require_size, target_of
from stoker.pages.errors import ChecksumError, FormatError, InvalidDelta
from stoker.pages.wire_codecs import BY_GAPS, BY_MASK, OF_ALL, Pair, Sections, Wanted, WireCodec, decode, encode

MAGIC: Final = b"SKWD"
VERSION: Final = 1
HEADER_BYTES: Final = 64
MODES: Final = ("auto", *(codec.name.lower() for codec in WireCodec if codec != WireCodec.SAME))
SAMPLE_BYTES: Final = 64 * 1024
GAP_RATIO_MAX: Final = 0.18
"""Above it a mask is as short as gaps (`python -m benchmarks.pages.deltas`)."""
MASK_RATIO_MAX: Final = 0.5
GAIN_RATIO_MIN: Final = 0.03
_HEADER: Final = struct.Struct("<4sBBBBQQQQQQII")
_CRC_AT: Final = 60
_OF_FEW: Final = (*BY_GAPS, *BY_MASK)


class WireHeader(msgspec.Struct, frozen=True):
    """What a blob says of itself."""

    codec: WireCodec
    elem_width: int
    raw_bytes: int
    changed: int
    base_xxh3: int
    new_xxh3: int
    places_bytes: int
    codes_bytes: int

    @property
    def density_ratio(self) -> float:
        """Elements that differ, of all."""
        return self.changed * self.elem_width / self.raw_bytes if self.raw_bytes else 0.0


def encode_wire(old: Image, new: Image, elem_width: int, *, mode: str = "auto", level: int = 1) -> bytes:
    """Return the difference of two images of one size as a blob, never longer than header and image.

    elem_width  1, 2, 4 or 8; images that are not whole elements are seen as single bytes
    mode        `auto`, or the name of a codec in lower case; where that is longer than the image, the image
    level       of zstd, 1 to 22

    Raises InvalidDelta for images of two sizes, UsageError for a width, mode or level there is not.
    """
    was, now = bytes_of(old), bytes_of(new)
    require_size(now, was.size)
    if elem_width not in WIDTHS or mode not in MODES or not 1 <= level <= 22:
        raise UsageError(
            "no such way to write a difference",
            expected=f"1, 2, 4 or 8 bytes, one of {', '.join(MODES)}, level 1 to 22",
            got=f"{elem_width} bytes, {mode!r}, level {level}",
        )
    width = elem_width if was.size % elem_width == 0 else 1
    pair = Pair.compare(was, now, width, MASK_RATIO_MAX if mode == "auto" else 1.0)
    codec, sections = _chosen(pair, mode, level)
    if sections.size_bytes > was.size * (1 - GAIN_RATIO_MIN if mode == "auto" else 1):
        codec, sections = WireCodec.RAW, encode(pair, WireCodec.RAW, level)
    return _blob(pair, codec, sections)


def read_header(blob: Readable) -> WireHeader:
    """Return what a blob says of itself.

    Raises FormatError for bytes that are no blob, or not whole; ChecksumError for damage.
    """
    view = memoryview(blob)
    if view.nbytes < HEADER_BYTES or bytes(view[:4]) != MAGIC:
        raise FormatError("bytes are not a difference", expected=f"{MAGIC!r}, a header", got=f"{view.nbytes} bytes")
    _, version, codec, width, zero, *numbers, zeros, crc = _HEADER.unpack_from(view)
    if version != VERSION:
        raise FormatError("difference has a version not known here", expected=str(VERSION), got=str(version))
    whole = HEADER_BYTES + numbers[4] + numbers[5]
    if whole != view.nbytes:
        raise FormatError("difference is not whole", expected=f"{whole} bytes", got=f"{view.nbytes} bytes")
    if crc32c(view[HEADER_BYTES:], crc32c(view[:_CRC_AT])) != crc:
        raise ChecksumError("difference is damaged", expected=f"CRC-32C {crc:08x}")
    known = codec in set(WireCodec) and width in WIDTHS and not zero and not zeros
    if not known or numbers[0] % width or numbers[1] > numbers[0] // width:
        raise FormatError("difference has a header that makes no sense", got=f"codec {codec}, width {width}")
    return WireHeader(WireCodec(codec), width, *numbers)


def decode_wire(old: Image, blob: Readable, out: Image | None = None) -> NDArray[np.uint8]:
    """Return the new image, uint8 of shape (bytes,): `out` where it is given, which may be `old` itself.

    Raises FormatError or ChecksumError for a blob that is none or damaged, InvalidDelta where `old` is not the image
    it was made from, UsageError where `out` overlaps `old` without being it. An `old` that was to be changed in place
    is then as it was, unless the blob lied about what it leads to; any other `out` holds nothing of use.
    """
    header = read_header(blob)
    was = bytes_of(old)
    if was.size != header.raw_bytes:
        raise InvalidDelta("image has another size", expected=f"{header.raw_bytes} bytes", got=f"{was.size} bytes")
    into = np.empty(was.size, np.uint8) if out is None else target_of(out, was.size)
    _copy_base(was, into, header)
    view = memoryview(blob)
    codes_at = HEADER_BYTES + header.places_bytes
    sections = Sections(view[HEADER_BYTES:codes_at], view[codes_at:])
    decode(into, Wanted(header.codec, header.elem_width, header.changed), sections)
    if xxh3_64(into.data) != header.new_xxh3:
        raise ChecksumError("difference led to another image than was encoded", expected=f"{header.new_xxh3:016x}")
    return into


def _copy_base(was: NDArray[np.uint8], into: NDArray[np.uint8], header: WireHeader) -> None:
    in_place = was.size == 0 or was.ctypes.data == into.ctypes.data
    if not in_place and np.may_share_memory(was, into):
        raise UsageError("memory for the new image overlaps the old one", expected="the same memory, or another")
    base = xxh3_64(was.data) if in_place else copy_xxh3(was.data, into.data)
    if base != header.base_xxh3:
        raise InvalidDelta(
            "difference was made from another image", expected=f"XXH3-64 {header.base_xxh3:016x}", got=f"{base:016x}"
        )


def _blob(pair: Pair, codec: WireCodec, sections: Sections) -> bytes:
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        codec,
        pair.width,
        0,
        pair.new.size,
        pair.found.changed,
        xxh3_64(pair.old.data),
        xxh3_64(pair.new.data),
        len(sections.places),
        len(sections.codes),
        0,
        0,
    )[:_CRC_AT]
    crc = crc32c(sections.codes, crc32c(sections.places, crc32c(head)))
    return b"".join((head, crc.to_bytes(4, "little"), sections.places, sections.codes))


def _chosen(pair: Pair, mode: str, level: int) -> tuple[WireCodec, Sections]:
    """Return the codec and what it makes of the images."""
    if not pair.found.changed:
        return WireCodec.SAME, Sections()
    if mode != "auto":
        codec = WireCodec[mode.upper()]
        return codec, encode(pair, codec, level)
    if pair.new.size <= SAMPLE_BYTES:
        return _best(pair, _candidates(pair), level)
    density = pair.found.changed * pair.width / pair.new.size
    codec = _best_of_values(pair, level) if density <= GAP_RATIO_MAX else _best_of_window(pair, level)
    return codec, encode(pair, codec, level)


def _candidates(pair: Pair) -> list[WireCodec]:
    of_few = _OF_FEW if pair.found.gaps is not None else ()
    return [WireCodec.RAW_ZSTD, WireCodec.TWO_LEVEL, *of_few, *OF_ALL]


def _best(pair: Pair, candidates: Sequence[WireCodec], level: int) -> tuple[WireCodec, Sections]:
    made = [(codec, encode(pair, codec, level)) for codec in candidates]
    return min(made, key=lambda choice: choice[1].size_bytes)


def _best_of_values(pair: Pair, level: int) -> WireCodec:
    """Return the codec by gaps whose codes of a sample of the changed values are the shortest."""
    found, values_bytes = pair.found, SAMPLE_BYTES // 8 * 8
    assert found.base_values is not None
    assert found.fresh_values is not None
    start = max(0, (found.changed - values_bytes // pair.width) // 2) * pair.width
    sample = slice(start, start + values_bytes)
    values = Pair.compare(found.base_values[sample], found.fresh_values[sample], pair.width, 0)
    coding, _ = _best(values, OF_ALL, level)
    return WireCodec.GAP_XOR if coding == WireCodec.PLANES_XOR else WireCodec.GAP_ULP


def _best_of_window(pair: Pair, level: int) -> WireCodec:
    """Return the codec that writes a sample from the middle of the images in the fewest bytes."""
    start = (pair.new.size - SAMPLE_BYTES) // 2 // 64 * 64
    window = slice(start, start + SAMPLE_BYTES)
    sample = Pair.compare(pair.old[window], pair.new[window], pair.width, 1.0)
    candidates = [codec for codec in _candidates(pair) if codec not in BY_GAPS and codec != WireCodec.TWO_LEVEL]
    return _best(sample, candidates, level)[0]
