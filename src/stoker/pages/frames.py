"""The record of the log: one frame, the same bytes in the ring of the arena, in segment files and on sockets.

A frame is a 56-byte little-endian header and a payload, padded with zeros to a multiple of 8 bytes:

| offset | type | field | meaning |
|---|---|---|---|
| 0 | u32 | length | bytes of the whole frame with its padding |
| 4 | u32 | crc | CRC-32C of bytes 8..length, begun with the store's salt |
| 8 | u64 | lsn | 1, 2, 3 … without a gap over the whole log |
| 16 | u64 | page | id of the page, 0 where none is meant |
| 24 | u64 | epoch | of the page after this frame |
| 32 | u64 | time_ns | nanoseconds since 1970, of the commit |
| 40 | u8 | type | FrameType |
| 41 | u8 | codec | Codec of the payload |
| 42 | u8 | elem_width | bytes of an element of the page: 1, 2, 4, 8 |
| 43 | u8 | flags | LAST ends a commit |
| 44 | u32 | source | number of the name of who wrote it (a SOURCE frame tells the name), 0 for none |
| 48 | u32 | payload_bytes | without the padding |
| 52 | u32 | zero | |

A commit is one or more frames with consecutive LSNs, of which the last alone carries LAST. Frames behind the last
LAST are an unfinished commit and do not count. Every frame may be applied twice: it overwrites.

Payloads by type:

| type | payload |
|---|---|
| CREATE | `CreateRecord`, then the metadata |
| FREE | none |
| RESIZE | u64 new size, u64 arena offset, u32 extent class, u32 zero (the last three only for the arena's redo) |
| MOVE | u8 location, u8 residency, 6 zero bytes |
| DELTA | by codec: TWO_LEVEL or RUNS |
| IMAGE | the whole page |
| META | the metadata (MessagePack map with text keys), u64 arena offset and u32 class, u32 zero before it |
| STATE | u8 PageState, 7 zero bytes |
| MARK | name, UTF-8 |
| EVENT | `EventRecord` bytes |
| CHECKPOINT | u64 LSN of the checkpoint, then its file name, UTF-8 |
| SOURCE | name, UTF-8; the frame's `source` is its number |

TWO_LEVEL for a page of S bytes, seen as ceil(S / 64) lines of 64 bytes: a bitmap of the dirty lines, ceil(lines / 64)
words of 64 bits; then for each dirty line a 64-bit mask of its changed bytes (bit i = byte i); then the changed bytes.
RUNS: any number of (u64 offset, u64 length, bytes padded to 8).
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final
from zlib import crc32

import msgspec

from stoker.kernels.checking import Readable, crc32c

FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct("<IIQQQQBBBBIII")
HEADER_BYTES: Final = 56
FRAME_BYTES_MAX: Final = 1 << 30
LAST: Final = 1
"""Flag of the last frame of a commit."""


class FrameType(IntEnum):
    """What a frame records."""

    CREATE = 1
    FREE = 2
    RESIZE = 3
    MOVE = 4
    DELTA = 5
    IMAGE = 6
    META = 7
    STATE = 8
    MARK = 9
    EVENT = 10
    CHECKPOINT = 11
    SOURCE = 12


class Codec(IntEnum):
    """How a payload is written. Only those that overwrite stand in logs."""

    RAW = 0
    TWO_LEVEL = 1
    RUNS = 2


class PageState(IntEnum):
    """State of a page. FREE and FREED entries hold no page."""

    FREE = 0
    CLEAN = 1
    DIRTY = 2
    STALE = 3
    COMPUTING = 4
    QUARANTINED = 5
    FREED = 6


class Location(IntEnum):
    """Where the authoritative bytes live."""

    HOST = 0
    DEVICE = 1
    UNIFIED = 2


class Residency(IntEnum):
    """Which copies of a page are the newest."""

    HOST = 0
    DEVICE = 1
    BOTH_HOST_NEWER = 2
    BOTH_DEVICE_NEWER = 3
    SPILLED = 4


class Frame(msgspec.Struct, frozen=True):
    """One record, as the table above; `payload` without padding."""

    lsn: int
    type: int
    page: int = 0
    epoch: int = 0
    time_ns: int = 0
    codec: int = 0
    elem_width: int = 1
    flags: int = 0
    source: int = 0
    payload: bytes | memoryview = b""

    @property
    def last(self) -> bool:
        """Tell whether a commit ends here."""
        return bool(self.flags & LAST)


CREATE_RECORD: Final = struct.Struct("<QQIBBBBII")
"""size_bytes u64, arena offset u64, extent class u32, state u8, location u8, residency u8, page flags u8, metadata
bytes u32, zero u32; offset and class serve only the redo of the arena that wrote them. The metadata follow."""
RESIZE_RECORD: Final = struct.Struct("<QQII")
META_RECORD: Final = struct.Struct("<QII")
MOVE_RECORD: Final = struct.Struct("<BB6x")
STATE_RECORD: Final = struct.Struct("<B7x")
CHECKPOINT_RECORD: Final = struct.Struct("<Q")
RUN_RECORD: Final = struct.Struct("<QQ")


def source_number(name: str) -> int:
    """Return the number that stands for a source in frames; 0 for none.

    It is the name's CRC-32: processes agree on it without asking each other, and a log that lost the frame with the
    name can still be searched for it.
    """
    return (crc32(name.encode()) or 1) if name else 0


def padded(size_bytes: int) -> int:
    """Return the size with its padding to 8 bytes."""
    return (size_bytes + 7) & ~7


def encode_frame(frame: Frame, salt: int) -> bytes:
    """Return the bytes of one frame."""
    payload = frame.payload
    length = HEADER_BYTES + padded(len(payload))
    tail = HEADER.pack(
        length,
        0,
        frame.lsn,
        frame.page,
        frame.epoch,
        frame.time_ns,
        frame.type,
        frame.codec,
        frame.elem_width,
        frame.flags,
        frame.source,
        len(payload),
        0,
    )
    body = tail[8:] + bytes(payload) + bytes(padded(len(payload)) - len(payload))
    return tail[:4] + crc32c(body, salt).to_bytes(4, "little") + body


def decode_frame(buffer: Readable, start: int, salt: int) -> Frame | None:
    """Return the frame that begins at `start`, its payload a view of `buffer`; None where no valid one does."""
    data = memoryview(buffer)
    if start + HEADER_BYTES > len(data):
        return None
    fields = HEADER.unpack_from(data, start)
    length, crc, payload_bytes = fields[0], fields[1], fields[11]
    fits = HEADER_BYTES <= length <= min(len(data) - start, FRAME_BYTES_MAX)
    if not fits or length != HEADER_BYTES + padded(payload_bytes) or fields[12]:
        return None
    if crc32c(data[start + 8 : start + length], salt) != crc:
        return None
    lsn, page, epoch, time_ns, kind, codec, width, flags, source = fields[2:11]
    body = data[start + HEADER_BYTES : start + HEADER_BYTES + payload_bytes]
    return Frame(lsn, kind, page, epoch, time_ns, codec, width, flags, source, body)


def frame_bytes(frame: Frame) -> int:
    """Return the bytes a frame takes, padding included."""
    return HEADER_BYTES + padded(len(frame.payload))


def frames_of(buffer: Readable, start: int, salt: int, first_lsn: int) -> Iterator[Frame]:
    """Yield valid frames with consecutive LSNs from `start` on, until one is not; commits may be unfinished."""
    expected = first_lsn
    while (frame := decode_frame(buffer, start, salt)) is not None and frame.lsn == expected:
        yield frame
        start += frame_bytes(frame)
        expected += 1
