"""JPEG and PNG: one 8-bit grey picture a file, as DLIO writes them; other people's colour pictures are read too.

What a picture's header claims is held against limits before anything is unpacked: pixels in all, and bytes out for
bytes in. PNG chunks are all compared with their checksums, which the library itself does in part only.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import MiB
from stoker.formats.api import Block, ContentSource, Extent, Layout, RangeSource, SampleSpec
from stoker.formats.base import (
    INFLATE_RATIO_MAX,
    Expectation,
    FormatBase,
    extent_bytes,
    gather,
    hold_against,
    plain_dtype,
    take,
    told_by,
)

PIXELS_MAX: Final = 1 << 27
_JPEG_SIDE_MAX: Final = 65500
_PNG_SIGN: Final = b"\x89PNG\r\n\x1a\n"
_KEPT_MODES: Final = ("L", "RGB")
_LIBRARY_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


class Picture(FormatBase):
    """No options of its own. Writing: uint8, at most two sides; one side is a column of pixels."""

    multi_sample = False

    def __init__(self, name: str, opener: Callable[[io.BytesIO], ImageFile.ImageFile], *, lossless: bool) -> None:
        self.name = self.extension = name
        self.lossless = lossless
        self._open = opener

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec with two sides and uint8. Raises UsageError for more sides, or too many pixels."""
        if len(spec.shape) > 2:
            raise UsageError(
                f"{self.name} format does not support more than 2 dimensions, but got {len(spec.shape)} dimensions."
            )
        plain_dtype(spec.dtype)
        shape = (*spec.shape, 1, 1)[:2]
        # What the options tell is what the caller asked for; the file will hold the two sides in 8 bits.
        options = {name: value for name, value in spec.options.items() if name not in ("shape", "dtype")}
        spec = super().check_spec(SampleSpec(shape, "uint8", spec.samples, options))
        if spec.sample_bytes > PIXELS_MAX or (self.name == "jpeg" and max(shape) > _JPEG_SIDE_MAX):
            raise UsageError(
                f"{self.name}: picture is too large",
                expected=f"at most {PIXELS_MAX} pixels, jpeg sides of at most {_JPEG_SIDE_MAX}",
                got=f"{shape}",
            )
        return spec

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the picture, with the library's default quality."""
        spec = self.check_spec(spec)
        out = io.BytesIO()
        Image.fromarray(take(content, 0, spec)).save(out, format=self.name)
        return gather(iter([out.getbuffer()]))

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return 1."""
        return 1

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x: (1, rows, columns), with a last side of 3 for colour; bytes after it are ignored."""
        view = extent_bytes(data, extent)
        if self.name == "png":
            check_chunks(view)
        try:
            with self._open(io.BytesIO(view)) as picture:
                _refuse_bomb(picture, len(view))
                picture.load()
                plain = picture if picture.mode in _KEPT_MODES else picture.convert(_plain_mode(picture.mode))
                array = np.asarray(plain)[np.newaxis]
        except _LIBRARY_ERRORS as error:
            raise CorruptError(f"{self.name}: picture cannot be read", got=str(error)) from error
        hold_against(array, extent, told_by(layout), self.name)
        return Block({"x": array}, primary="x", samples=1, copied_bytes=array.nbytes)


def check_chunks(data: memoryview) -> None:
    """Walk a PNG's chunks. Raises CorruptError unless they run from header to end, every checksum right."""
    if bytes(data[:8]) != _PNG_SIGN:
        raise CorruptError("not a png picture", got=repr(bytes(data[:8])))
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise CorruptError("png: picture is cut off", got=f"{len(data)} bytes")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise CorruptError("png: picture is cut off", expected=f"{end + 4} bytes", got=f"{len(data)}")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise CorruptError("png: chunk fails its checksum", got=repr(kind))
        at = end + 4


def _refuse_bomb(picture: ImageFile.ImageFile, held_bytes: int) -> None:
    pixels = picture.width * picture.height
    if pixels > PIXELS_MAX or pixels > held_bytes * INFLATE_RATIO_MAX + MiB:
        raise CorruptError(
            "picture claims an absurd size", expected=f"at most {PIXELS_MAX} pixels", got=f"{picture.size}"
        )


def _plain_mode(mode: str) -> str:
    return "L" if mode == "1" else "RGB"


JPEG: Final = Picture("jpeg", JpegImagePlugin.JpegImageFile, lossless=False)
PNG: Final = Picture("png", PngImagePlugin.PngImageFile, lossless=True)
