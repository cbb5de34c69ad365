"""The plain twin of the native unpack kernels: the same strict forms, spelled out in Python.

What is told apart here is *usual* and *unusual*, never good and bad: a file or record that is not exactly in the form
its common writers give it is marked unusual, and the format's own reader decides.
"""

import re
import struct
from typing import Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from stoker.kernels.unpack_columns import (
    ARRAY_AT,
    ARRAY_DTYPE,
    ARRAY_FORTRAN,
    ARRAY_LABEL_AT,
    ARRAY_LABEL_DTYPE,
    ARRAY_SIDES,
    ARRAY_SIDES_MAX,
    ARRAY_STATUS,
    HEADER_BYTES_MAX,
    RECORD_CHECKSUM,
    RECORD_IMAGE_AT,
    RECORD_IMAGE_BYTES,
    RECORD_PAYLOAD_AT,
    RECORD_PAYLOAD_BYTES,
    SCAN_BROKEN,
    SCAN_END,
    SCAN_FULL,
    SCAN_MORE,
    USUAL,
    Int64s,
    dtype_code,
)

Member = tuple[int, int, int]
"""Offset of the local header, bytes of the content, and 0 for x.npy or 1 for y.npy."""

_END: Final = struct.Struct("<4s4H2IH")
_CENTRAL: Final = struct.Struct("<4s4B4H3I5H2I")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_LOCATOR_BYTES: Final = 20
_ENCRYPTED_FLAGS: Final = 0x2041
_FULL32: Final = 0xFFFFFFFF
_NAMES: Final = {b"x.npy": 0, b"y.npy": 1}
_SIDE: Final = rb"[1-9]\d{0,17}"
_HEADER: Final = re.compile(
    rb"\{'descr': '(\|[biu]1|[<>](?:[iuf][248]|c8|c16))', 'fortran_order': (True|False), 'shape': "
    rb"\((%b,|%b(?:, %b){1,%d})\), \}[ \n]*" % (_SIDE, _SIDE, _SIDE, ARRAY_SIDES_MAX - 1)
)

_HEAD: Final = struct.Struct("<QI")
_HEAD_BYTES: Final = 12
_FOOT_BYTES: Final = 4
_MASK: Final = 0xA282EAD8
_VARINT_BYTES_MAX: Final = 9
"""Nine digits of seven bits are all that a positive 64-bit number holds."""
_SHAPES_KEPT_MAX: Final = 64


class _Array:
    """What a usual `.npy` header says."""

    __slots__ = ("at", "dtype", "fortran", "sides")

    def __init__(self, at: int, dtype: int, fortran: int, sides: list[int]) -> None:
        self.at = at
        self.dtype = dtype
        self.fortran = fortran
        self.sides = sides


def npz_locate(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, found: Int64s) -> None:
    """See `stoker.kernels.unpacking.npz_locate`; `found` starts as zeros, unusual."""
    view = data.data
    for start, length, row in zip(starts.tolist(), lengths.tolist(), found, strict=True):
        _npz(view[start : start + length], start, row)


def npy_locate(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, found: Int64s) -> None:
    """See `stoker.kernels.unpacking.npy_locate`."""
    view = data.data
    for start, length, row in zip(starts.tolist(), lengths.tolist(), found, strict=True):
        array = _npy(view, start, length)
        if array is not None:
            _enter(row, array)


def _npz(file: memoryview, start: int, row: Int64s) -> None:
    members = _members(file)
    arrays: list[_Array | None] = [None, None]
    for offset, size, which in members:
        if offset + _LOCAL.size > len(file):
            return
        local = _LOCAL.unpack_from(file, offset)
        at = offset + _LOCAL.size + local[9] + local[10]
        if local[0] != b"PK\x03\x04" or local[3] != 0 or at + size > len(file):
            return
        arrays[which] = _npy(file, at, size)
        if arrays[which] is None:
            return
    x, y = arrays
    if x is None or (y is not None and y.sides != x.sides[-1:]):
        return
    x.at += start
    _enter(row, x)
    if y is not None:
        row[ARRAY_LABEL_AT] = y.at + start
        row[ARRAY_LABEL_DTYPE] = y.dtype


def _members(file: memoryview) -> list[Member]:
    """Return the one or two members of a usual archive in the order of the file, [] for any other."""
    border = len(file) - _END.size
    if border < 0:
        return []
    sign, disk, first_disk, here, count, length, start, comment = _END.unpack_from(file, border)
    locator = bytes(file[max(border - _LOCATOR_BYTES, 0) :][:4])
    plain = sign == b"PK\x05\x06" and not (disk or first_disk or comment) and locator != b"PK\x06\x07"
    if not plain or here != count or not 1 <= count <= len(_NAMES) or start + length != border:
        return []
    members: list[Member] = []
    at = start
    for _ in range(count):
        member, at = _entry(file, at, border)
        if member is None:
            return []
        members.append(member)
    members.sort()
    ends = [*(offset for offset, _, _ in members[1:]), start]
    doubled = len({which for _, _, which in members}) != count
    overlapping = any(offset + _LOCAL.size + size > end for (offset, size, _), end in zip(members, ends, strict=True))
    return [] if at != border or doubled or overlapping else members


def _entry(file: memoryview, at: int, border: int) -> tuple[Member | None, int]:
    if at + _CENTRAL.size > border:
        return None, border
    fields = _CENTRAL.unpack_from(file, at)
    packed, size, name_bytes, extra_bytes, comment_bytes, offset = (*fields[10:15], fields[18])
    name_at = at + _CENTRAL.size
    end = name_at + name_bytes + extra_bytes + comment_bytes
    stored = fields[6] == 0 and not fields[5] & _ENCRYPTED_FLAGS and packed == size
    which = _NAMES.get(bytes(file[name_at : name_at + name_bytes]))
    if fields[0] != b"PK\x01\x02" or not stored or which is None or _FULL32 in (size, offset) or end > border:
        return None, border
    return (offset, size, which), end


def _npy(view: memoryview, at: int, size: int) -> _Array | None:
    """Return what the array at `at`, `size` bytes with its header, says of itself; None when it is unusual."""
    lead = bytes(view[at : at + min(size, 12)])
    if len(lead) < 12 or lead[:6] != b"\x93NUMPY" or lead[6] not in (1, 2, 3) or lead[7] != 0:
        return None
    width = 2 if lead[6] == 1 else 4
    text_bytes = int.from_bytes(lead[8 : 8 + width], "little")
    head_bytes = 8 + width + text_bytes
    if text_bytes > HEADER_BYTES_MAX or head_bytes > size:
        return None
    match = _HEADER.fullmatch(view[at + 8 + width : at + head_bytes])
    if match is None:
        return None
    descr, order, shape = match.groups()
    sides = [int(side) for side in bytes(shape).rstrip(b",").split(b",")]
    elements = 1
    for side in sides:
        elements *= side
    if elements * int(bytes(descr[2:])) != size - head_bytes:
        return None
    return _Array(at + head_bytes, dtype_code(bytes(descr)), int(order == b"True"), sides)


def _enter(row: Int64s, array: _Array) -> None:
    row[ARRAY_STATUS] = USUAL
    row[ARRAY_DTYPE] = array.dtype
    row[ARRAY_FORTRAN] = array.fortran
    row[ARRAY_SIDES] = len(array.sides)
    row[ARRAY_SIDES + 1 : ARRAY_SIDES + 1 + len(array.sides)] = array.sides
    row[ARRAY_AT] = array.at


def examples_locate(
    data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, counts: Int64s, statuses: Int64s, records: Int64s
) -> None:
    """See `stoker.kernels.unpacking.examples_locate`."""
    view = data.data
    known: dict[int, tuple[bytes, bytes]] = {}
    first = 0
    spans = zip(starts.tolist(), lengths.tolist(), counts.tolist(), strict=True)
    for number, (start, length, count) in enumerate(spans):
        at, end = start, start + length
        for row in records[first : first + count]:
            at = _record(view, at, end, row, known)
            if at < 0:
                break
        if at == end:
            statuses[number] = USUAL
        else:
            records[first : first + count] = 0
        first += count


def _record(view: memoryview, at: int, end: int, row: Int64s, known: dict[int, tuple[bytes, bytes]]) -> int:
    """Fill in what lies where in the record at `at`; return where the next one starts, -1 when it is unusual."""
    size, good = _framed(view, at, end)
    payload_at = at + _HEAD_BYTES
    if not good or payload_at + size + _FOOT_BYTES > end:
        return -1
    payload = view[payload_at : payload_at + size]
    # What stands around the image tells all; records of one size mostly have it in common.
    head, tail = known.get(size, (b"", b""))
    if head and payload[: len(head)] == head and payload[size - len(tail) :] == tail:
        image_at, image_bytes = len(head), size - len(head) - len(tail)
    else:
        image_at, image_bytes = _image(payload)
        if image_at < 0:
            return -1
        if len(known) < _SHAPES_KEPT_MAX:
            known[size] = (bytes(payload[:image_at]), bytes(payload[image_at + image_bytes :]))
    row[RECORD_PAYLOAD_AT] = payload_at
    row[RECORD_PAYLOAD_BYTES] = size
    row[RECORD_CHECKSUM] = int.from_bytes(view[payload_at + size : payload_at + size + 4], "little")
    row[RECORD_IMAGE_AT] = payload_at + image_at
    row[RECORD_IMAGE_BYTES] = image_bytes
    return payload_at + size + _FOOT_BYTES


def _framed(view: memoryview, at: int, end: int) -> tuple[int, bool]:
    """Return the payload length told at `at`, and whether its checksum is right."""
    if at + _HEAD_BYTES > end:
        return 0, False
    size, checksum = _HEAD.unpack_from(view, at)
    return size, masked_crc32c(view[at : at + 8]) == checksum


def masked_crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return int(((crc >> 15 | crc << 17) + _MASK) & _FULL32)


class _Unusual(Exception):
    """A message that is not in the form its common writers give it."""


def _image(payload: memoryview) -> tuple[int, int]:
    """Return where the bytes of feature `image` lie in an Example, (-1, 0) when it is unusual."""
    try:
        return _example(payload)
    except _Unusual:
        return -1, 0


def _example(view: memoryview) -> tuple[int, int]:
    image: tuple[int, int] | None = None
    told: int | None = None
    at, end = _whole(view, 0, len(view), 0x0A)
    while at < end:
        entry, entry_end = _span(view, at, end, 0x0A)
        key, key_end = _span(view, entry, entry_end, 0x0A)
        value, value_end = _whole(view, key_end, entry_end, 0x12)
        name = bytes(view[key:key_end])
        if name == b"image":
            if image is not None:
                raise _Unusual
            items, items_end = _whole(view, value, value_end, 0x0A)
            image = _whole(view, items, items_end, 0x0A)
        elif name == b"size":
            if told is not None:
                raise _Unusual
            told = _number(view, *_whole(view, value, value_end, 0x1A))
        at = entry_end
    if image is None or told not in (None, image[1] - image[0]):
        raise _Unusual
    return image[0], image[1] - image[0]


def _number(view: memoryview, at: int, end: int) -> int:
    """Return the only number of an int64 list, packed or not."""
    if at < end and view[at] == 0x0A:
        at, end = _whole(view, at, end, 0x0A)
    elif at < end and view[at] == 0x08:
        at += 1
    else:
        raise _Unusual
    value, at = _varint(view, at, end)
    if at != end:
        raise _Unusual
    return value


def _whole(view: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return start and end of the field at `at`, which must be tagged `tag` and end where its parent does."""
    span = _span(view, at, end, tag)
    if span[1] != end:
        raise _Unusual
    return span


def _span(view: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
    if at >= end or view[at] != tag:
        raise _Unusual
    length, at = _varint(view, at + 1, end)
    if length > end - at:
        raise _Unusual
    return at, at + length


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(view[at : min(at + _VARINT_BYTES_MAX, end)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _Unusual


def records_scan(window: NDArray[np.uint8], left_bytes: int, offsets: Int64s, sizes: Int64s) -> tuple[int, int, int]:
    """See `stoker.kernels.unpacking.records_scan`."""
    view = window.data
    at = count = 0
    while at != left_bytes:
        if count == len(offsets):
            return count, at, SCAN_FULL
        if left_bytes - at < _HEAD_BYTES + _FOOT_BYTES:
            return count, at, SCAN_BROKEN
        if at + _HEAD_BYTES > len(view):
            return count, at, SCAN_MORE
        size, good = _framed(view, at, min(len(view), left_bytes))
        if not good or at + _HEAD_BYTES + size + _FOOT_BYTES > left_bytes:
            return count, at, SCAN_BROKEN
        offsets[count] = at
        sizes[count] = _HEAD_BYTES + size + _FOOT_BYTES
        at += _HEAD_BYTES + size + _FOOT_BYTES
        count += 1
    return count, at, SCAN_END
