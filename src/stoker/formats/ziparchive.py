"""ZIP archives as `.npz` files use them: members found through the central directory, never by unpacking blindly.

Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3 (ZIP64). Encryption, several disks, and any packing but
stored and deflate are refused, and so are members that overlap or lie outside the file.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.core.units import KiB
from stoker.formats.api import RangeSource
from stoker.formats.base import INFLATE_RATIO_MAX

STORED: Final = 0
DEFLATED: Final = 8

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s4B4H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCAL_SIGN: Final = b"PK\x03\x04"
_CENTRAL_SIGN: Final = b"PK\x01\x02"
_END_SIGN: Final = b"PK\x05\x06"
_LOCATOR_SIGN: Final = b"PK\x06\x07"
_END64_SIGN: Final = b"PK\x06\x06"
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF
_ZIP64_EXTRA: Final = 1
_ZIP64_VERSION: Final = 45
_ENCRYPTED_FLAGS: Final = 0x2041
_DATE_1980: Final = 0x21
_ZIP64_BORDER: Final = (1 << 31) - 1
"""Python's zipfile, and so DLIO, turns to ZIP64 fields in the central directory above 2 GiB."""

_UNIX: Final = 3
_MODE_0600: Final = 0o600 << 16
TAIL_BYTES: Final = 1 * KiB
_TAIL_BYTES_MAX: Final = _END.size + _LOCATOR.size + _END64.size + _FULL16


class Member(msgspec.Struct, frozen=True):
    """One file of an archive, as the central directory tells it."""

    name: str
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset_bytes: int


def list_members(source: RangeSource) -> dict[str, Member]:
    """Return the members by name, in the order of the central directory. Raises CorruptError."""
    start, size_bytes, count = _directory_span(source)
    view = source.read(start, size_bytes)
    members: dict[str, Member] = {}
    position = 0
    for _ in range(count):
        member, position = _central_entry(view, position)
        if member.name in members:
            raise CorruptError("zip names a member twice", got=repr(member.name[:80]))
        members[member.name] = member
    if position != size_bytes:
        raise CorruptError("zip directory has bytes left over", got=f"{size_bytes - position}")
    _refuse_overlap(members, start)
    return members


def _directory_span(source: RangeSource) -> tuple[int, int, int]:
    """Return (offset, length, entries) of the central directory."""
    size_bytes = source.size_bytes
    for tail_bytes in (min(size_bytes, TAIL_BYTES), min(size_bytes, _TAIL_BYTES_MAX)):
        tail = bytes(source.read(size_bytes - tail_bytes, tail_bytes))
        found = _find_end(tail)
        if found >= 0:
            break
    else:
        raise CorruptError("zip has no end record: the file is cut off, or bytes follow it", got=f"{size_bytes} bytes")
    _, disk, first_disk, here, count, length, start, _ = _END.unpack_from(tail, found)
    border = size_bytes - tail_bytes + found
    locator_at = found - _LOCATOR.size
    if locator_at >= 0 and tail.startswith(_LOCATOR_SIGN, locator_at):
        border, count, length, start = _end64(source, tail, locator_at)
    elif disk or first_disk or here != count:
        raise CorruptError("zip spans several disks", got=f"disk {disk}")
    if start + length != border or count * _CENTRAL.size > length:
        raise CorruptError(
            "zip directory is not where its end record says", expected=f"{border}", got=f"{start} + {length}"
        )
    return start, length, count


def _find_end(tail: bytes) -> int:
    """Return where the end record starts whose comment ends exactly at the file's end, -1 when there is none."""
    at = tail.rfind(_END_SIGN)
    while at >= 0:
        if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(_END_SIGN, 0, at)
    return -1


def _end64(source: RangeSource, tail: bytes, locator_at: int) -> tuple[int, int, int, int]:
    """Return (border, entries, length, offset) from the ZIP64 end record."""
    at = _LOCATOR.unpack_from(tail, locator_at)[2]
    if at + _END64.size > source.size_bytes:
        raise CorruptError("zip64 end record lies outside the file", got=str(at))
    fields = _END64.unpack(source.read(at, _END64.size))
    sign, record_bytes, disk, first_disk, here, count, length, start = fields[0], fields[1], *fields[4:]
    if sign != _END64_SIGN or record_bytes < _END64.size - 12 or disk or first_disk or here != count:
        raise CorruptError("zip64 end record is malformed", got=repr(sign))
    return at, count, length, start


def _central_entry(view: memoryview, position: int) -> tuple[Member, int]:
    if position + _CENTRAL.size > len(view):
        raise CorruptError("zip directory is cut off", got=f"{len(view)} bytes")
    fields = _CENTRAL.unpack_from(view, position)
    sign, flags, method = fields[0], fields[5], fields[6]
    crc32, packed, size = fields[9:12]
    name_bytes, extra_bytes, comment_bytes = fields[12:15]
    name_at = position + _CENTRAL.size
    extra_at = name_at + name_bytes
    end = extra_at + extra_bytes + comment_bytes
    if sign != _CENTRAL_SIGN or end > len(view):
        raise CorruptError("zip directory entry is malformed", got=repr(sign))
    if flags & _ENCRYPTED_FLAGS or method not in (STORED, DEFLATED):
        raise CorruptError("zip member cannot be read", expected="stored or deflated", got=f"method {method}")
    offset = fields[18]
    if _FULL32 in (packed, size, offset):
        size, packed, offset = _zip64_extra(bytes(view[extra_at : extra_at + extra_bytes]), size, packed, offset)
    name = bytes(view[name_at:extra_at]).decode("utf-8", "backslashreplace")
    return Member(name, method, crc32, packed, size, offset), end


def _zip64_extra(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replace each saturated value by its 64-bit twin from the extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            numbers = [int.from_bytes(extra[i : i + 8], "little") for i in range(at + 4, at + 4 + length - 7, 8)]
            if at + 4 + length > len(extra) or len(numbers) < [size, packed, offset].count(_FULL32):
                break
            wide = iter(numbers)
            return (
                next(wide) if size == _FULL32 else size,
                next(wide) if packed == _FULL32 else packed,
                next(wide) if offset == _FULL32 else offset,
            )
        at += 4 + length
    raise CorruptError("zip64 sizes are missing")


def _refuse_overlap(members: dict[str, Member], directory_at: int) -> None:
    border = 0
    for member in sorted(members.values(), key=lambda item: item.offset_bytes):
        if member.offset_bytes < border:
            raise CorruptError("zip members overlap", got=repr(member.name[:80]))
        border = member.offset_bytes + _LOCAL.size + member.packed_bytes
    if border > directory_at:
        raise CorruptError("zip member lies outside the file", expected=f"at most {directory_at}", got=f"{border}")


def data_start(head: memoryview, member: Member) -> int:
    """Return where the member's data starts, from the 30 or more bytes at its local header. Raises CorruptError."""
    if len(head) < _LOCAL.size:
        raise CorruptError("zip member is cut off", got=repr(member.name[:80]))
    fields = _LOCAL.unpack_from(head)
    if fields[0] != _LOCAL_SIGN or fields[3] != member.method:
        raise CorruptError("zip member is not where the directory says", got=repr(member.name[:80]))
    return member.offset_bytes + _LOCAL.size + int(fields[9]) + int(fields[10])


def member_data(data: memoryview, member: Member, *, verify: bool) -> memoryview:
    """Return a member's content: a view when it is stored, fresh memory when it was deflated.

    The CRC-32 of a stored member is compared when `verify`; of a deflated one always, as it costs little beside
    the unpacking. Raises CorruptError.
    """
    start = data_start(data[member.offset_bytes : member.offset_bytes + _LOCAL.size], member)
    packed = data[start : start + member.packed_bytes]
    if len(packed) != member.packed_bytes:
        raise CorruptError("zip member lies outside the file", got=repr(member.name[:80]))
    if member.method == STORED:
        if member.size_bytes != member.packed_bytes:
            raise CorruptError("zip member tells two sizes", got=f"{member.size_bytes} and {member.packed_bytes}")
        content = packed
    else:
        content = memoryview(inflate(packed, member.size_bytes))
    if (verify or member.method != STORED) and zlib.crc32(content) != member.crc32:
        raise CorruptError("zip member fails its checksum", expected=f"{member.crc32:08x}", got=repr(member.name[:80]))
    return content


def inflate(packed: memoryview, size_bytes: int) -> bytes:
    """Return the `size_bytes` that raw deflate data unpack to. Raises CorruptError for a bomb or malformed data."""
    if size_bytes > len(packed) * INFLATE_RATIO_MAX + KiB:
        raise CorruptError("zip member claims an impossible size", got=f"{size_bytes} from {len(packed)} bytes")
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = machine.decompress(packed, size_bytes + 1)
    except zlib.error as error:
        raise CorruptError("zip member cannot be unpacked", got=str(error)) from error
    if len(content) != size_bytes or not machine.eof or machine.unused_data:
        raise CorruptError("zip member unpacks to another size", expected=f"{size_bytes}", got=f"{len(content)}")
    return content


def deflate(pieces: Iterator[memoryview], level: int) -> bytes:
    """Return the raw deflate form of the pieces joined."""
    machine = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join([*(machine.compress(piece) for piece in pieces), machine.flush()])


def local_header(member: Member) -> bytes:
    """Return the header that goes before a member's data: ZIP64 style, as NumPy writes it, whatever the size."""
    name = member.name.encode()
    extra = struct.pack("<2H2Q", _ZIP64_EXTRA, 16, member.size_bytes, member.packed_bytes)
    fields = (_ZIP64_VERSION, 0, member.method, 0, _DATE_1980, member.crc32, _FULL32, _FULL32, len(name), len(extra))
    return _LOCAL.pack(_LOCAL_SIGN, *fields) + name + extra


def directory(members: list[Member], start: int) -> bytes:
    """Return the central directory of an archive whose data end at `start`, and the end records."""
    entries = b"".join(_directory_entry(member) for member in members)
    count, length = len(members), len(entries)
    end64 = b""
    if start > _ZIP64_BORDER or length > _ZIP64_BORDER:
        at = start + length
        fields = (_END64.size - 12, _ZIP64_VERSION, _ZIP64_VERSION, 0, 0, count, count, length, start)
        end64 = _END64.pack(_END64_SIGN, *fields) + _LOCATOR.pack(_LOCATOR_SIGN, 0, at, 1)
    end = _END.pack(_END_SIGN, 0, 0, count, count, min(length, _FULL32), min(start, _FULL32), 0)
    return entries + end64 + end


def _directory_entry(member: Member) -> bytes:
    name = member.name.encode()
    size, packed, offset = member.size_bytes, member.packed_bytes, member.offset_bytes
    wide: list[int] = []
    if max(size, packed) > _ZIP64_BORDER:
        wide += [size, packed]
        size = packed = _FULL32
    if offset > _ZIP64_BORDER:
        wide.append(offset)
        offset = _FULL32
    extra = struct.pack(f"<2H{len(wide)}Q", _ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    versions = (_ZIP64_VERSION, _UNIX, _ZIP64_VERSION, 0)
    fields = (0, member.method, 0, _DATE_1980, member.crc32, packed, size, len(name), len(extra), 0, 0, 0, _MODE_0600)
    return _CENTRAL.pack(_CENTRAL_SIGN, *versions, *fields, offset) + name + extra
