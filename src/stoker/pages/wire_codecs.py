"""The codecs of `stoker.pages.wire`: how the difference of two images becomes two sections of bytes, and comes back.

| codec | places | codes |
|---|---|---|
| SAME | | |
| RAW | | the new image |
| RAW_ZSTD | | zstd of the new image |
| TWO_LEVEL | | the payload of that name, see `stoker.pages.frames` |
| GAP_XOR, GAP_ULP | zstd of the gaps of the elements that differ | zstd of the planes of their codes |
| MASK_XOR, MASK_ULP | zstd of a mask of the elements that differ | the same |
| PLANES_XOR, PLANES_ULP | | zstd of the planes of the codes of all elements |

Gaps, masks, codes and planes are those of `stoker.kernels.wiring`. What a section holds once it is unpacked follows
from the header, or is bounded by it; a section that promises anything else is refused before memory is taken for it.
"""

from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels import deltas, wiring
from stoker.kernels.wiring import Coding, Elements
from stoker.pages.errors import FormatError

Bytes = NDArray[np.uint8]
WINDOW_BYTES_MAX: Final = 1 << 27
"""What zstd may want to look back at; more is refused."""


class WireCodec(IntEnum):
    """How a difference is written."""

    SAME = 0
    RAW = 1
    RAW_ZSTD = 2
    TWO_LEVEL = 3
    GAP_XOR = 4
    GAP_ULP = 5
    MASK_XOR = 6
    MASK_ULP = 7
    PLANES_XOR = 8
    PLANES_ULP = 9


_CODING: Final = {
    WireCodec.GAP_XOR: Coding.BITS,
    WireCodec.GAP_ULP: Coding.ULPS,
    WireCodec.MASK_XOR: Coding.BITS,
    WireCodec.MASK_ULP: Coding.ULPS,
    WireCodec.PLANES_XOR: Coding.BITS,
    WireCodec.PLANES_ULP: Coding.ULPS,
}
BY_GAPS: Final = (WireCodec.GAP_XOR, WireCodec.GAP_ULP)
BY_MASK: Final = (WireCodec.MASK_XOR, WireCodec.MASK_ULP)
OF_ALL: Final = (WireCodec.PLANES_XOR, WireCodec.PLANES_ULP)


class Pair(msgspec.Struct, frozen=True):
    """Two images of one size, elements of `width` bytes, and what differs between them."""

    old: Bytes
    new: Bytes
    width: int
    found: Elements

    @classmethod
    def compare(cls, old: Bytes, new: Bytes, width: int, values_ratio_max: float) -> "Pair":
        """Compare the images; gaps and values are there where no more than that share of the elements differs."""
        count = old.size // width
        return cls(old, new, width, wiring.diff_elements(old.data, new.data, width, int(count * values_ratio_max)))


class Sections(msgspec.Struct, frozen=True):
    """What is written behind the header."""

    places: bytes | memoryview = b""
    codes: bytes | memoryview = b""

    @property
    def size_bytes(self) -> int:
        """Bytes of both."""
        return len(self.places) + len(self.codes)


def encode(pair: Pair, codec: WireCodec, level: int) -> Sections:
    """Return the sections; the codecs of gaps and masks need the values in `pair`."""
    zstd = zstandard.ZstdCompressor(level=level)
    if codec == WireCodec.SAME:
        return Sections()
    if codec == WireCodec.RAW:
        return Sections(codes=pair.new.data)
    if codec == WireCodec.RAW_ZSTD:
        return Sections(codes=zstd.compress(pair.new.data))
    if codec == WireCodec.TWO_LEVEL:
        return Sections(codes=deltas.two_level_diff(pair.old, pair.new)[0])
    coding = _CODING[codec]
    if codec in OF_ALL:
        return Sections(
            codes=zstd.compress(wiring.encode_planes(pair.old.data, pair.new.data, pair.width, coding).data)
        )
    found = pair.found
    assert found.gaps is not None
    assert found.base_values is not None
    assert found.fresh_values is not None
    planes = wiring.encode_planes(found.base_values.data, found.fresh_values.data, pair.width, coding)
    places = found.gaps if codec in BY_GAPS else found.mask
    return Sections(zstd.compress(places.data), zstd.compress(planes.data))


class Wanted(msgspec.Struct, frozen=True):
    """What the header promises of the sections."""

    codec: WireCodec
    width: int
    changed: int


def decode(target: Bytes, wanted: Wanted, sections: Sections) -> None:
    """Turn `target`, which holds the old image, into the new one.

    Raises FormatError for sections that are not what was promised, before they are unpacked.
    """
    codec, width = wanted.codec, wanted.width
    try:
        if codec in (WireCodec.SAME, WireCodec.RAW, WireCodec.RAW_ZSTD, WireCodec.TWO_LEVEL):
            _decode_whole(target, codec, sections)
            return
        coding = _CODING[codec]
        if codec in OF_ALL:
            planes = _unpacked(sections.codes, target.size, target.size)
            wiring.apply_planes(target.data, width, coding, planes)
            return
        count = target.size // width
        planes = _unpacked(sections.codes, wanted.changed * width, wanted.changed * width)
        if codec in BY_GAPS:
            gaps = _unpacked(sections.places, wanted.changed, wanted.changed + count // 255 + 1)
            wiring.apply_gaps(target.data, width, coding, planes, gaps)
        else:
            mask_bytes = wiring.mask_bytes(count)
            wiring.apply_mask(target.data, width, coding, planes, _unpacked(sections.places, mask_bytes, mask_bytes))
    except FormatError:
        raise
    except CorruptError as error:
        raise FormatError("difference does not fit its image", got=str(error)) from error


def _decode_whole(target: Bytes, codec: WireCodec, sections: Sections) -> None:
    codes = sections.codes
    if codec == WireCodec.TWO_LEVEL:
        deltas.two_level_apply(target.data, codes)
    elif codec == WireCodec.RAW:
        if len(codes) != target.size:
            raise FormatError("image has another size", expected=f"{target.size} bytes", got=f"{len(codes)} bytes")
        target[:] = np.frombuffer(codes, np.uint8)
    elif codec == WireCodec.RAW_ZSTD:
        target[:] = np.frombuffer(_unpacked(codes, target.size, target.size), np.uint8)
    elif len(codes):
        raise FormatError("image that did not change has codes", got=f"{len(codes)} bytes")


def _unpacked(section: bytes | memoryview, bytes_min: int, bytes_max: int) -> bytes:
    """Return what one zstd frame holds, if it says that it holds no fewer and no more bytes than these."""
    try:
        told = zstandard.get_frame_parameters(section)
        if not bytes_min <= told.content_size <= bytes_max or told.window_size > max(WINDOW_BYTES_MAX, bytes_max):
            raise FormatError(
                "section of a difference promises another size",
                expected=f"{bytes_min} to {bytes_max} bytes",
                got=f"{told.content_size} bytes, window of {told.window_size}",
            )
        data = zstandard.ZstdDecompressor().decompress(section, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError("section of a difference cannot be unpacked", got=str(error)) from error
    if len(data) != told.content_size:
        raise FormatError("section of a difference is not whole", expected=f"{told.content_size} bytes")
    return data
