"""A delta on its own as bytes: a 64-byte little-endian header, the source's name, the note, the payload.

| offset | type | field |
|---|---|---|
| 0 | 4 bytes | magic `SKDL` |
| 4 | u8 | version, 1 |
| 5 | u8 | kind: 0 overwrites, 1 is XOR |
| 6 | u8 | codec |
| 7 | u8 | elem_width |
| 8 | u64 | page |
| 16 | u64 | epoch |
| 24 | u64 | base epoch, 0 where it overwrites |
| 32 | u64 | size of the page |
| 40 | u64 | payload bytes |
| 48 | u32 | bytes of the source's name, UTF-8 |
| 52 | u32 | bytes of the note, a MessagePack map with text keys |
| 56 | u32 | zero |
| 60 | u32 | CRC-32C of everything else |
"""

import struct
from typing import Final

import msgspec

from stoker.kernels.checking import Readable, crc32c
from stoker.pages.errors import ChecksumError, FormatError, InvalidDelta
from stoker.pages.images import Meta, decode_meta, encode_meta

MAGIC: Final = b"SKDL"
VERSION: Final = 1
OVERWRITE: Final = 0
XOR: Final = 1
HEADER_BYTES: Final = 64
_HEADER: Final = struct.Struct("<4sBBBBQQQQQIIII")
_CRC_AT: Final = 60


class DeltaRecord(msgspec.Struct, frozen=True):
    """The fields of the header, and what follows it."""

    kind: int
    page: int
    epoch: int
    size_bytes: int
    payload: bytes
    codec: int
    elem_width: int
    source: str = ""
    note: Meta = {}
    base_epoch: int = 0


def encode_record(record: DeltaRecord) -> bytes:
    """Return the bytes of a delta. Raises InvalidDelta for numbers or texts that have no place in the header."""
    source, note = record.source.encode(), encode_meta(record.note)
    try:
        head = _HEADER.pack(
            MAGIC,
            VERSION,
            record.kind,
            record.codec,
            record.elem_width,
            record.page,
            record.epoch,
            record.base_epoch,
            record.size_bytes,
            len(record.payload),
            len(source),
            len(note),
            0,
            0,
        )
    except struct.error as error:
        raise InvalidDelta("delta has a field out of range", got=str(error)) from error
    body = b"".join((source, note, record.payload))
    return head[:_CRC_AT] + crc32c(body, crc32c(head[:_CRC_AT])).to_bytes(4, "little") + body


def decode_record(data: Readable, kind: int) -> DeltaRecord:
    """Return the delta that the bytes hold.

    Raises FormatError for bytes that are no delta of this kind, or not whole; ChecksumError for damage.
    """
    view = memoryview(data)
    if view.nbytes < HEADER_BYTES or bytes(view[:4]) != MAGIC:
        raise FormatError("bytes are not a delta", expected=f"{MAGIC!r} and a header", got=f"{view.nbytes} bytes")
    fields = _HEADER.unpack_from(view)
    version, found_kind, codec, width, page, epoch, base_epoch, size_bytes = fields[1:9]
    payload_bytes, source_bytes, note_bytes, zero, crc = fields[9:]
    if version != VERSION:
        raise FormatError("delta has a version this release does not know", expected=str(VERSION), got=str(version))
    whole = HEADER_BYTES + source_bytes + note_bytes + payload_bytes
    if whole != view.nbytes:
        raise FormatError("delta is not whole", expected=f"{whole} bytes", got=f"{view.nbytes} bytes")
    if crc32c(view[HEADER_BYTES:], crc32c(view[:_CRC_AT])) != crc:
        raise ChecksumError("delta is damaged", expected=f"CRC-32C {crc:08x}")
    if found_kind != kind or zero:
        raise FormatError("delta is of another kind", expected=str(kind), got=str(found_kind))
    note_at = HEADER_BYTES + source_bytes
    try:
        source = bytes(view[HEADER_BYTES:note_at]).decode()
    except UnicodeDecodeError as error:
        raise FormatError("source of a delta cannot be read", got=str(error)) from error
    note = decode_meta(bytes(view[note_at : note_at + note_bytes]))
    payload = bytes(view[note_at + note_bytes :])
    return DeltaRecord(found_kind, page, epoch, size_bytes, payload, codec, width, source, note, base_epoch)
