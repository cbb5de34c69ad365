"""CSV: one row a sample, its elements in C order; no header, no index, every row with its own content.

DLIO writes one row again and again; here each row is its own sample's. A compressed file keeps the name that the
plan gave it (no `.gz` is added, so that listings by suffix still find it); what it is packed with is told by its
first bytes. Integers come back exactly, floats by their shortest decimal form. Every row ends with a line feed,
the last one too: without it a file counts as cut off.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import MiB
from stoker.formats.api import Array, Block, ContentSource, Extent, Layout, RangeSource, SampleSpec
from stoker.formats.base import (
    INFLATE_RATIO_MAX,
    Expectation,
    FormatBase,
    extent_bytes,
    gather,
    hold_against,
    take,
    told_by,
)
from stoker.formats.ranges import MemorySource
from stoker.formats.ziparchive import DEFLATED, Member, deflate, directory, list_members, local_header, member_data

_GZIP_BITS: Final = 31
_LZMA_MEMORY_BYTES_MAX: Final = 256 * MiB
_SLACK_BYTES: Final = 16 * MiB
_MEMBER: Final = "data.csv"
_MAGICS: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_BYTE_WORDS: Final = [b"%d" % value for value in range(256)]
_UNPACK_ERRORS: Final = (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError)


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


_PACKERS: Final[dict[str, Callable[[], _Packer]]] = {
    "gzip": lambda: zlib.compressobj(6, zlib.DEFLATED, _GZIP_BITS),
    "bz2": bz2.BZ2Compressor,
    "xz": lambda: lzma.LZMACompressor(lzma.FORMAT_XZ),
}
_UNPACKERS: Final[dict[str, Callable[[], _Unpacker]]] = {
    "gzip": lambda: zlib.decompressobj(_GZIP_BITS),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES_MAX),
}


class Csv(FormatBase):
    """Option: `compression` none, gzip, bz2, xz or zip. Reading: without `dtype`, int64 if that holds, else float64."""

    name = "csv"
    extension = "csv"
    whole_file = False
    compressions = ("none", "gzip", "bz2", "xz", "zip")

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec. Raises UsageError for complex numbers too."""
        spec = super().check_spec(spec)
        if np.dtype(spec.dtype).kind == "c":
            raise UsageError("csv does not hold complex numbers", got=spec.dtype)
        return spec

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the rows, packed if asked, one sample in memory at a time (all, packed, for zip)."""
        spec = self.check_spec(spec)
        rows = (row_text(take(content, index, spec)) for index in range(spec.samples))
        compression = self.compression(spec.options)
        if compression == "none":
            return gather(rows)
        return gather(_zip(rows) if compression == "zip" else _pack(rows, _PACKERS[compression]()))

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return the number of rows; needs the whole file, so telling `samples` saves a read."""
        return unpacked(source.read(0, source.size_bytes), told.compression).count(b"\n")

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x. Raises CorruptError for ragged rows, and for numbers that the dtype cannot hold."""
        told = told_by(layout)
        text = unpacked(extent_bytes(data, extent), told.compression)
        array = _parse(text, None if told.dtype is None else np.dtype(told.dtype))
        if told.shape is not None:
            if array.size != len(array) * SampleSpec(told.shape).sample_bytes:
                raise CorruptError("csv: wrong row length", expected=f"{told.shape}", got=f"{array.shape[1]}")
            array = array.reshape(len(array), *told.shape)
        hold_against(array, extent, told, "csv")
        return Block({"x": array}, primary="x", samples=extent.samples, copied_bytes=array.nbytes)


def row_text(sample: Array) -> bytes:
    """Return one sample as a row with its line feed."""
    flat = sample.reshape(-1)
    if flat.dtype == np.uint8 or flat.dtype.kind == "b":
        return b",".join(map(_BYTE_WORDS.__getitem__, flat.tobytes())) + b"\n"
    if flat.dtype.kind in "iu":
        return ",".join(map(str, flat.tolist())).encode() + b"\n"
    return ",".join(flat.astype(str).tolist()).encode() + b"\n"


def unpacked(data: memoryview, compression: str | None) -> bytes:
    """Return the text of a file, unpacked by its first bytes. Raises CorruptError if `compression` says otherwise."""
    head = bytes(data[:6])
    found = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), "none")
    if compression is not None and found != compression:
        raise CorruptError("csv: packed otherwise than told", expected=compression, got=found)
    if found == "none":
        return bytes(data)
    limit = len(data) * INFLATE_RATIO_MAX + _SLACK_BYTES
    if found == "zip":
        members = list(list_members(MemorySource(data)).values())
        if len(members) != 1:
            raise CorruptError("csv: zip holds other than one member", got=str(len(members)))
        return bytes(member_data(data, members[0], verify=True))
    return _unpack(bytes(data), _UNPACKERS[found], limit)


def _unpack(data: bytes, machine: Callable[[], _Unpacker], limit: int) -> bytes:
    """Unpack one stream after the other, at most `limit` bytes in all."""
    parts: list[bytes] = []
    held = 0
    while data:
        unpacker = machine()
        try:
            part = unpacker.decompress(data, max_length=limit - held + 1)
        except _UNPACK_ERRORS as error:
            raise CorruptError("csv: cannot be unpacked", got=str(error)) from error
        held += len(part)
        parts.append(part)
        if held > limit:
            raise CorruptError("csv: unpacks to an absurd size", expected=f"at most {limit} bytes")
        if not unpacker.eof:
            raise CorruptError("csv: packed data are cut off", got=f"{held} bytes unpacked")
        data = unpacker.unused_data
    return b"".join(parts)


def _parse(text: bytes, dtype: np.dtype[Any] | None) -> Array:
    if not text.endswith(b"\n"):
        raise CorruptError("csv: the last row is cut off", expected="a line feed at the end", got=repr(text[-20:]))
    try:
        words = text.decode("ascii")
        if words.isspace():
            raise ValueError("no rows")
        if dtype is not None:
            return _numbers(words, dtype)
        try:
            return _numbers(words, np.dtype("int64"))
        except ValueError:
            return _numbers(words, np.dtype("float64"))
    except ValueError as error:
        raise CorruptError("csv: rows are malformed", got=str(error)) from error


def _numbers(words: str, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        numbers = _numbers(words, np.dtype("uint8"))
        if numbers.max() > 1:
            raise ValueError(f"a bool is 0 or 1, not {numbers.max()}")
        return numbers.view(np.bool_)
    return np.loadtxt(io.StringIO(words), dtype=dtype, delimiter=",", comments=None, ndmin=2)


def _pack(rows: Iterator[bytes], packer: _Packer) -> Iterator[bytes]:
    for row in rows:
        yield packer.compress(row)
    yield packer.flush()


def _zip(rows: Iterator[bytes]) -> Iterator[bytes]:
    crc32 = size_bytes = 0

    def counted() -> Iterator[memoryview]:
        nonlocal crc32, size_bytes
        for row in rows:
            crc32 = zlib.crc32(row, crc32)
            size_bytes += len(row)
            yield memoryview(row)

    packed = deflate(counted(), 6)
    member = Member(_MEMBER, DEFLATED, crc32, len(packed), size_bytes, 0)
    header = local_header(member)
    yield header
    yield packed
    yield directory([member], len(header) + len(packed))


FORMAT: Final = Csv()
