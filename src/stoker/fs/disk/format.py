"""Format 1 of what lies on a disk: pure functions between bytes and values. docs/design/fs_disk.md has the tables.

Integers are big-endian. A shard's header is the same in a segment and in a file of its own. Whatever is read here may
be torn or hostile: each size is checked against what surrounds it before it is used.
"""

import struct
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.core.units import MiB
from stoker.fs.disk.interface import FORMAT, SHARD_BYTES_MAX, Bytes, ShardHeader, ShardId, check_header
from stoker.kernels import checking

HEADER_MAGIC: Final = b"STKSHARD"
SEGMENT_MAGIC: Final = b"STKSEGMT"
RECORD_MAGIC: Final = b"SREC"
FILE_MAGIC: Final = b"SFIL"

_HEADER: Final = struct.Struct(">8sHHI16sQQBBBxHxxIIII")
_CRC: Final = struct.Struct(">I")
_SEGMENT: Final = struct.Struct(">8sHHI16s16s16s")
_RECORD: Final = struct.Struct(">4sIIIIIIIII")
_FILE: Final = struct.Struct(">4sII")
_GONE: Final = struct.Struct(">QQBII")

HEADER_BYTES_MIN: Final = _HEADER.size + _CRC.size
HEADER_BYTES_MAX: Final = HEADER_BYTES_MIN + 4 * (SHARD_BYTES_MAX // 4096)
PREFIX_BYTES: Final = _RECORD.size + _CRC.size
FILE_PREFIX_BYTES: Final = _FILE.size + _CRC.size
SEGMENT_HEADER_BYTES: Final = 4096
RECORD_ALIGN_BYTES: Final = 512
FILE_ALIGN_BYTES: Final = 4096
SEGMENT_BYTES_MAX: Final = 1024 * MiB
SALT_BYTES: Final = 16

KIND_SHARD: Final = 1
KIND_GONE: Final = 2
KIND_MARK: Final = 3
KINDS: Final = (KIND_SHARD, KIND_GONE, KIND_MARK)
_RECORD_BYTES_MAX: Final = PREFIX_BYTES + HEADER_BYTES_MAX + SHARD_BYTES_MAX + RECORD_ALIGN_BYTES
GONE_MAX: Final = 4096
"""Removals that one record tells at most."""


class Prefix(msgspec.Struct, frozen=True):
    """What stands before every record of a segment.

    `data_start` counts from the record's first byte. Everything before `synced_bytes` of the segment was durable when
    the record was written. `origin` is the segment that a compaction took it from, 0 for one that is new.
    """

    kind: int
    segment: int
    offset: int
    record_bytes: int
    data_start: int
    data_bytes: int
    synced_bytes: int
    origin: int = 0


class Gone(msgspec.Struct, frozen=True):
    """A removal: the shard, and the place it lay at. Segment 0 is a file of its own, whose token is the offset."""

    shard: ShardId
    segment: int
    offset: int


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first block of a segment. The salt goes into each record's checksum: data cannot pass for records."""

    number: int
    volume: str
    disk: str
    salt: bytes


def aligned(size_bytes: int, align_bytes: int) -> int:
    """Return the size rounded up."""
    return -(-size_bytes // align_bytes) * align_bytes


def pack_header(header: ShardHeader) -> bytes:
    """Return the canonical bytes of a header. Raises UsageError for numbers that no shard has."""
    check_header(header)
    shard = header.shard
    body = (
        _HEADER.pack(
            HEADER_MAGIC, FORMAT, 0, HEADER_BYTES_MIN + len(header.crcs), uuid.UUID(header.volume).bytes,
            shard.slice_id, shard.generation, shard.index, header.k, header.m, header.storage_class,
            header.cell_bytes, header.slice_bytes, header.shard_bytes, header.cells,
        )
        + header.crcs
    )  # fmt: skip
    return body + _CRC.pack(checking.crc32c(body))


def unpack_header(data: Bytes, where: str = "") -> ShardHeader:
    """Return the header that stands at the start of `data`. Raises CorruptError for anything else."""
    view = memoryview(data)
    if len(view) < HEADER_BYTES_MIN or bytes(view[:8]) != HEADER_MAGIC:
        raise CorruptError("no header of a shard is here", where=where)
    fields = _HEADER.unpack_from(view)
    _, version, flags, header_bytes, volume, slice_id, generation, index, k, m, storage_class = fields[:11]
    cell_bytes, slice_bytes, shard_bytes, cells = fields[11:]
    if version != FORMAT or flags:
        raise CorruptError(
            "header of a shard is of another format", where=where, expected=str(FORMAT), got=f"{version}"
        )
    if header_bytes != HEADER_BYTES_MIN + 4 * cells or header_bytes > len(view):
        raise CorruptError("header of a shard has another size", where=where, got=f"{header_bytes} bytes")
    end = header_bytes - _CRC.size
    if checking.crc32c(view[:end]) != _CRC.unpack_from(view, end)[0]:
        raise CorruptError("header of a shard does not fit its checksum", where=where)
    header = ShardHeader(
        str(uuid.UUID(bytes=volume)), ShardId(slice_id, generation, index), storage_class, k, m, cell_bytes,
        slice_bytes, shard_bytes, bytes(view[_HEADER.size : end]),
    )  # fmt: skip
    try:
        check_header(header)
    except StokerError as error:
        raise CorruptError("header of a shard has impossible numbers", where=where, got=error.got) from None
    return header


def pack_segment(header: SegmentHeader) -> bytes:
    """Return the first block of a segment."""
    volume, disk = uuid.UUID(header.volume).bytes, uuid.UUID(header.disk).bytes
    body = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT, 0, header.number, volume, disk, header.salt)
    return (body + _CRC.pack(checking.crc32c(body))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def unpack_segment(data: Bytes, where: str = "") -> SegmentHeader:
    """Return what the first block of a segment says. Raises CorruptError, UsageError for a newer format."""
    view = memoryview(data)
    if len(view) < SEGMENT_HEADER_BYTES or bytes(view[:8]) != SEGMENT_MAGIC:
        raise CorruptError("file is no segment", where=where)
    if checking.crc32c(view[: _SEGMENT.size]) != _CRC.unpack_from(view, _SEGMENT.size)[0]:
        raise CorruptError("header of a segment does not fit its checksum", where=where)
    _, version, flags, number, volume, disk, salt = _SEGMENT.unpack_from(view)
    if version != FORMAT or flags:
        raise UsageError("segment is of another format", where=where, expected=str(FORMAT), got=str(version))
    return SegmentHeader(number, str(uuid.UUID(bytes=volume)), str(uuid.UUID(bytes=disk)), salt)


def pack_prefix(prefix: Prefix, salt_crc: int) -> bytes:
    """Return what stands before a record; `salt_crc` is the CRC-32C of its segment's salt."""
    body = _RECORD.pack(
        RECORD_MAGIC, prefix.kind, prefix.segment, prefix.offset, prefix.record_bytes, prefix.data_start,
        prefix.data_bytes, prefix.synced_bytes, prefix.origin, 0,
    )  # fmt: skip
    return body + _CRC.pack(checking.crc32c(body, salt_crc))


def unpack_prefix(data: Bytes, salt_crc: int, *, segment: int, offset: int) -> Prefix | None:
    """Return what stands before the record at this place, None where no record begins."""
    view = memoryview(data)
    if len(view) < PREFIX_BYTES or bytes(view[:4]) != RECORD_MAGIC:
        return None
    if checking.crc32c(view[: _RECORD.size], salt_crc) != _CRC.unpack_from(view, _RECORD.size)[0]:
        return None
    _, *numbers, reserved = _RECORD.unpack_from(view)
    prefix = Prefix(*numbers)
    if (prefix.segment, prefix.offset, reserved) != (segment, offset, 0) or prefix.kind not in KINDS:
        return None
    return prefix if _sizes_fit(prefix) else None


def _sizes_fit(prefix: Prefix) -> bool:
    filled_bytes = prefix.data_start + prefix.data_bytes
    return (
        prefix.record_bytes % RECORD_ALIGN_BYTES == 0
        and PREFIX_BYTES <= prefix.data_start <= PREFIX_BYTES + HEADER_BYTES_MAX
        and aligned(filled_bytes, RECORD_ALIGN_BYTES) == prefix.record_bytes <= _RECORD_BYTES_MAX
    )


def pack_file_prefix(token: int, header: bytes) -> bytes:
    """Return what stands before the data of a shard that has a file of its own, up to the data's alignment."""
    data_start = aligned(FILE_PREFIX_BYTES + len(header), FILE_ALIGN_BYTES)
    body = _FILE.pack(FILE_MAGIC, token, data_start)
    return (body + _CRC.pack(checking.crc32c(body)) + header).ljust(data_start, b"\0")


def unpack_file_prefix(data: Bytes, where: str = "") -> tuple[int, int]:
    """Return the token of a file and where its data starts; the header stands behind the prefix."""
    view = memoryview(data)
    if len(view) < FILE_PREFIX_BYTES or bytes(view[:4]) != FILE_MAGIC:
        raise CorruptError("file is no shard", where=where)
    _, token, data_start = _FILE.unpack_from(view)
    if checking.crc32c(view[: _FILE.size]) != _CRC.unpack_from(view, _FILE.size)[0]:
        raise CorruptError("beginning of a shard's file does not fit its checksum", where=where)
    longest_bytes = aligned(FILE_PREFIX_BYTES + HEADER_BYTES_MAX, FILE_ALIGN_BYTES)
    if not FILE_ALIGN_BYTES <= data_start <= longest_bytes or data_start % FILE_ALIGN_BYTES:
        raise CorruptError("data of a shard's file starts at an impossible place", where=where, got=str(data_start))
    return token, data_start


def pack_gone(removals: Sequence[Gone]) -> bytes:
    """Return the data of a record that tells removals, their checksum behind them."""
    body = b"".join(
        _GONE.pack(g.shard.slice_id, g.shard.generation, g.shard.index, g.segment, g.offset) for g in removals
    )
    return body + _CRC.pack(checking.crc32c(body))


def unpack_gone(data: Bytes) -> list[Gone] | None:
    """Return the removals that a record tells, None where its bytes are not those that were written."""
    view = memoryview(data)
    count, rest = divmod(len(view) - _CRC.size, _GONE.size)
    if count < 0 or rest or count > GONE_MAX:
        return None
    if checking.crc32c(view[: -_CRC.size]) != _CRC.unpack_from(view, len(view) - _CRC.size)[0]:
        return None
    rows = _GONE.iter_unpack(view[: -_CRC.size])
    return [
        Gone(ShardId(slice_id, generation, index), segment, offset)
        for slice_id, generation, index, segment, offset in rows
    ]


GONE_BYTES: Final = _GONE.size
