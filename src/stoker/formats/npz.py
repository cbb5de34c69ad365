"""NPZ: a ZIP archive of `x.npy`, the samples along the last axis, and `y.npy`, one label each.

Byte for byte what `numpy.savez(x=…, y=…)` writes (and `savez_compressed` at level 6), which is what DLIO calls: with
n samples and D payload bytes the file has D + 490 + 8n bytes. Unlike there, `compression: zip` really packs.
A stored member is decoded as a view; the sample axis is moved to the front by strides alone.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import KiB
from stoker.formats.api import (
    Array,
    Block,
    ContentSource,
    DecodedMany,
    Extent,
    Int64s,
    Layout,
    RangeSource,
    SampleSpec,
)
from stoker.formats.arrays import (
    HEADER_BYTES_MAX,
    PREFIX_BYTES_MAX,
    ArrayHeader,
    build_header,
    read_header,
    view_array,
)
from stoker.formats.base import (
    Expectation,
    FormatBase,
    as_bytes,
    extent_bytes,
    gather,
    hold_against,
    take,
    told_by,
    whole_number,
)
from stoker.formats.many import decode_each, extents_in
from stoker.formats.many_arrays import decode_arrays
from stoker.formats.ranges import MemorySource
from stoker.formats.ziparchive import (
    DEFLATED,
    STORED,
    Member,
    data_start,
    deflate,
    directory,
    list_members,
    local_header,
    member_data,
)
from stoker.kernels.unpacking import npz_locate

_SAMPLES_MEMBER: Final = "x.npy"
_LABELS_MEMBER: Final = "y.npy"
_LABEL_DTYPE: Final = np.dtype("int64")
_DEFAULT_LEVEL: Final = 6


class Npz(FormatBase):
    """Options: `compression` none or zip, `compression_level` 0 to 9 (zip only), `verify` the checksums on reading."""

    name = "npz"
    extension = "npz"
    own_options = ("compression_level", "verify")
    compressions = ("none", "zip")

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options given. Raises UsageError for a level that nothing would use."""
        given = super().checked_options(options)
        level = given.get("compression_level")
        if level is not None and (given.get("compression") != "zip" or whole_number("level", level, low=0) > 9):
            raise UsageError("npz: compression_level needs compression zip", expected="0 to 9", got=repr(level))
        return given

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the archive; the samples are held in memory once, as their axis comes last in the file."""
        spec = self.check_spec(spec)
        return gather(_archive(spec, content))

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return the last side of `x`, from the directory and one header."""
        member = _samples_member(list_members(source))
        head_bytes = min(4 * KiB, source.size_bytes - member.offset_bytes)
        start = data_start(source.read(member.offset_bytes, head_bytes), member)
        if start + member.packed_bytes > source.size_bytes:
            raise CorruptError("npz: x.npy lies outside the file", got=f"{start} + {member.packed_bytes}")
        wanted = HEADER_BYTES_MAX + PREFIX_BYTES_MAX
        packed = source.read(start, min(member.packed_bytes, wanted))
        if member.method == DEFLATED:
            try:
                packed = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, wanted))
            except zlib.error as error:
                raise CorruptError("npz: x.npy cannot be unpacked", got=str(error)) from error
        return count_last_axis(read_header(packed), member.size_bytes)

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the columns x (samples first) and, when there, y. Other members are left alone."""
        view = extent_bytes(data, extent)
        told = told_by(layout)
        members = list_members(MemorySource(view))
        columns: dict[str, Array] = {}
        copied_bytes = 0
        for name, member in (("x", _samples_member(members)), ("y", members.get(_LABELS_MEMBER))):
            if member is None:
                continue
            array = samples_first(view_array(member_data(view, member, verify=bool(told.verify))))
            copied_bytes += array.nbytes if member.method == DEFLATED else 0
            columns[name] = array
        hold_against(columns["x"], extent, told, "npz: x.npy")
        if "y" in columns and columns["y"].shape[0] != extent.samples:
            raise CorruptError("npz: y.npy has another number of samples than x.npy", got=str(columns["y"].shape))
        return Block(columns, primary="x", samples=extent.samples, copied_bytes=copied_bytes)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: views of stored members, found by their headers alone."""
        extents = extents_in(data, starts, lengths, samples, context)
        if extents.told.verify:
            return decode_each(self, extents)
        return decode_arrays(self, extents, npz_locate(data, extents.starts, extents.lengths))

    def verify(self, data: memoryview) -> None:
        """Compare every member with its checksum. Raises CorruptError for the first that fails."""
        for member in list_members(MemorySource(data)).values():
            member_data(data, member, verify=True)


def samples_first(array: Array) -> Array:
    """Return a view with the last axis, the sample, put first. Raises CorruptError for a scalar."""
    if array.ndim == 0:
        raise CorruptError("array has no sample axis", expected="at least one side", got="a scalar")
    return array.transpose(array.ndim - 1, *range(array.ndim - 1))


def count_last_axis(header: ArrayHeader, file_bytes: int) -> int:
    """Return the last side of an array whose `.npy` file has `file_bytes`. Raises CorruptError if they disagree."""
    if not header.shape:
        raise CorruptError("array has no sample axis", expected="at least one side", got="a scalar")
    if header.header_bytes + header.data_bytes != file_bytes:
        raise CorruptError(
            "npy array and its header disagree", expected=f"{header.data_bytes} bytes", got=f"{file_bytes}"
        )
    return header.shape[-1]


def samples_last(spec: SampleSpec, content: ContentSource) -> Array:
    """Return all samples in one C-ordered array with the sample axis last; one sample alone is not copied."""
    if spec.samples == 1:
        return take(content, 0, spec).reshape(*spec.shape, 1)
    stacked = np.empty((*spec.shape, spec.samples), np.dtype(spec.dtype))
    for index in range(spec.samples):
        stacked[..., index] = take(content, index, spec)
    return stacked


def _samples_member(members: dict[str, Member]) -> Member:
    member = members.get(_SAMPLES_MEMBER)
    if member is None:
        raise CorruptError("npz holds no samples", expected=_SAMPLES_MEMBER, got=", ".join(members)[:200] or "nothing")
    return member


def _archive(spec: SampleSpec, content: ContentSource) -> Iterator[bytes | memoryview]:
    level = spec.options.get("compression_level")
    packing = (DEFLATED, _DEFAULT_LEVEL if level is None else int(level))
    if spec.options.get("compression") != "zip":
        packing = (STORED, 0)
    members: list[Member] = []
    offset_bytes = 0
    for name in (_SAMPLES_MEMBER, _LABELS_MEMBER):
        array = samples_last(spec, content) if name == _SAMPLES_MEMBER else np.zeros(spec.samples, _LABEL_DTYPE)
        member, pieces = _pack(name, array, packing, offset_bytes)
        header = local_header(member)
        members.append(member)
        offset_bytes += len(header) + member.packed_bytes
        yield header
        yield from pieces
    yield directory(members, offset_bytes)


def _pack(
    name: str, array: Array, packing: tuple[int, int], offset_bytes: int
) -> tuple[Member, list[bytes | memoryview]]:
    method, level = packing
    header, body = build_header(array.shape, array.dtype), as_bytes(array)
    crc32 = zlib.crc32(body, zlib.crc32(header))
    size_bytes = len(header) + len(body)
    pieces: list[bytes | memoryview] = [header, body]
    if method == DEFLATED:
        pieces = [deflate(iter((memoryview(header), body)), level)]
    packed_bytes = sum(len(piece) for piece in pieces)
    return Member(name, method, crc32, packed_bytes, size_bytes, offset_bytes), pieces


FORMAT: Final = Npz()
