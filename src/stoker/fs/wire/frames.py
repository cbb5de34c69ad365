"""Frames: what goes over a connection, as bytes. Pure functions, no sockets.

A frame is a prefix of 24 bytes, a header of msgpack, and a payload of raw bytes:

    magic u16 | version u8 | type u8 | flags u16 | header length u16 | request id u64 | payload length u32 | crc32c u32

Numbers have their highest byte first. The checksum covers the prefix before it and the header, so that no length is
believed, and nothing allocated for it, before it is proved to be what the peer sent. The payload has checksums of its
own: one in the header of the frame, or those of the cells it is made of.
"""

import enum
import struct
from typing import Final, NamedTuple

from stoker.core.errors import CorruptError, PreflightError
from stoker.core.units import KiB, MiB
from stoker.kernels.checking import crc32c

MAGIC: Final = 0x5746
MAGIC_BYTES: Final = MAGIC.to_bytes(2, "big")
FRAME_VERSION: Final = 1
HEADER_BYTES_MAX: Final = 2**16 - 1
PAYLOAD_BYTES_MAX: Final = 64 * MiB + 1024 * KiB
"""The greatest slice, and 1 MiB for what describes it."""
HELLO_BYTES_MAX: Final = 4 * KiB
"""The greatest header before a peer is known."""
_PREFIX: Final = struct.Struct(">HBBHHQII")
_CHECKED_BYTES: Final = 20
PREFIX_BYTES: Final = _PREFIX.size
BODY_IN_PAYLOAD: Final = 1
"""Flag: the payload begins with the request or answer, which is too large for the header."""


class FrameType(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    REQUEST = 5
    ANSWER = 6
    FAULT = 7
    PING = 8
    PONG = 9
    GOODBYE = 10


class Prefix(NamedTuple):
    """The fixed part of a frame, without what every frame has alike; `checksum` is not yet verified."""

    type: FrameType
    flags: int
    header_bytes: int
    request: int
    payload_bytes: int
    checksum: int
    checked: bytes


def frame_head(kind: FrameType, request: int, header: bytes, payload_bytes: int = 0, flags: int = 0) -> bytes:
    """Return a frame up to its payload."""
    assert len(header) <= HEADER_BYTES_MAX and payload_bytes <= PAYLOAD_BYTES_MAX
    open_end = _PREFIX.pack(MAGIC, FRAME_VERSION, kind, flags, len(header), request, payload_bytes, 0)
    checksum = crc32c(header, crc32c(open_end[:_CHECKED_BYTES]))
    return b"".join((open_end[:_CHECKED_BYTES], checksum.to_bytes(4, "big"), header))


def read_prefix(data: bytes | bytearray | memoryview) -> Prefix:
    """Return the fixed part of a frame from its 24 bytes.

    Raises CorruptError for bytes that are none, PreflightError for the frame of another version.
    """
    magic, version, kind, flags, header_bytes, request, payload_bytes, checksum = _PREFIX.unpack(data)
    if magic != MAGIC:
        raise CorruptError("what came is no frame", expected=f"{MAGIC:#06x} first", got=f"{magic:#06x}")
    if version != FRAME_VERSION:
        raise PreflightError("frame of another version", expected=str(FRAME_VERSION), got=str(version))
    if not FrameType.HELLO <= kind <= FrameType.GOODBYE:
        raise CorruptError("frame of a type that is not known", got=str(kind))
    if payload_bytes > PAYLOAD_BYTES_MAX:
        raise CorruptError(
            "frame is too large", expected=f"a payload of {PAYLOAD_BYTES_MAX} bytes at most", got=str(payload_bytes)
        )
    checked = bytes(data[:_CHECKED_BYTES])
    return Prefix(FrameType(kind), flags, header_bytes, request, payload_bytes, checksum, checked)


def check_header(prefix: Prefix, header: bytes | bytearray | memoryview) -> None:
    """Raise CorruptError unless prefix and header are what the peer sent."""
    found = crc32c(header, crc32c(prefix.checked))
    if found != prefix.checksum:
        raise CorruptError("header of a frame is damaged", expected=f"{prefix.checksum:#010x}", got=f"{found:#010x}")
