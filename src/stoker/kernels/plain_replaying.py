"""Plain twin of the replay kernel: reads frames one by one, and does what they say.

The layout of a frame is that of `stoker.pages.frames`.
"""

import ctypes
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.kernels import plain_deltas
from stoker.kernels.checking import Readable, crc32c

HEADER: Final = struct.Struct("<IIQQQQIIII")
_HEADER_BYTES: Final = 56
_FRAME_BYTES_MAX: Final = 1 << 30
_RUN: Final = struct.Struct("<QQ")
_DELTA, _IMAGE, _TWO_LEVEL, _RUNS = 5, 6, 1, 2
Rows = NDArray[np.uint64]


def scan_frames(
    buffer: Readable, start: int, salt: int, first_lsn: int, covers_lsn: int, rows: Rows
) -> tuple[int, int]:
    """Read valid frames into rows; return how many, and the offset behind them."""
    data = memoryview(buffer)
    count, expected = 0, first_lsn
    while count < len(rows) and start + _HEADER_BYTES <= len(data):
        length, crc, lsn, page, epoch, time_ns, kinds, source, payload_bytes, zero = HEADER.unpack_from(data, start)
        fits = _HEADER_BYTES <= length <= min(len(data) - start, _FRAME_BYTES_MAX)
        if not fits or zero or length != _HEADER_BYTES + (payload_bytes + 7 & ~7):
            break
        if crc32c(data[start + 8 : start + length], salt) != crc:
            break
        if lsn != expected and not expected < lsn <= covers_lsn:
            break
        rows[count] = (start, lsn, page, epoch, time_ns, kinds, source, payload_bytes)
        count, start, expected = count + 1, start + length, lsn + 1
    return count, start


def replay_frames(buffer: Readable, rows: Rows, slots: NDArray[np.int64], pages: Rows) -> int:
    """Do what DELTA and IMAGE frames say, in order; return how many were done."""
    data = memoryview(buffer)
    for index, (row, slot) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
        start, lsn, _, epoch, _, kinds, _, payload_bytes = row
        address, size_bytes, before, _ = pages[slot].tolist()
        payload = data[start + _HEADER_BYTES : start + _HEADER_BYTES + payload_bytes]
        page = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
        if epoch != before + 1 or not _apply(page, kinds & 0xFF, kinds >> 8 & 0xFF, payload):
            return index
        pages[slot, 2:] = (epoch, lsn)
    return len(rows)


def _apply(page: NDArray[np.uint8], kind: int, codec: int, payload: memoryview) -> bool:
    if kind == _IMAGE:
        if len(payload) != page.size:
            return False
        page[:] = np.frombuffer(payload, np.uint8)
        return True
    if kind != _DELTA:
        return False
    if codec == _TWO_LEVEL:
        return plain_deltas.two_level_apply(page.data, payload)
    runs = _runs(payload, page.size) if codec == _RUNS else None
    for offset, data in runs or ():
        page[offset : offset + data.size] = data
    return runs is not None


def _runs(payload: memoryview, page_bytes: int) -> list[tuple[int, NDArray[np.uint8]]] | None:
    found, position = [], 0
    while position + _RUN.size <= len(payload):
        offset, length = _RUN.unpack_from(payload, position)
        position += _RUN.size
        if offset + length > page_bytes or position + length > len(payload):
            return None
        found.append((offset, np.frombuffer(payload, np.uint8, length, position)))
        position += length + 7 & ~7
    return found
