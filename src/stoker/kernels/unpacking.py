"""Finding samples in files that lie in memory: many at once, by their headers alone, no payload byte is touched.

The files may hold anything: every length and offset in them is checked against their end before it is used. Files
and records that are not exactly in the form that common writers give them are left to the format's own reader.
"""

from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.kernels import plain_unpacking
from stoker.kernels.checking import crc32c_many
from stoker.kernels.native import native_kernels
from stoker.kernels.plain_unpacking import masked_crc32c
from stoker.kernels.unpack_columns import ARRAY_COLUMNS, RECORD_COLUMNS, RECORD_PAYLOAD_AT, Int64s

__all__ = ["checksums_hold", "examples_locate", "masked_crc32c", "npy_locate", "npz_locate", "records_scan"]

_RECORDS_MAX: Final = 1 << 40
_MASK_DELTA: Final = 0xA282EAD8


def npz_locate(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> Int64s:
    """Find `x.npy` and `y.npy` in the archives at `starts`, `lengths` bytes each; shape (n, ARRAY_COLUMNS).

    Usual is: these members alone, stored, with headers as NumPy writes them, of at most ARRAY_SIDES_MAX sides, none
    of them 0, and one label a sample. Archives beyond 4 GiB, whose directory is another, are unusual too. Checksums
    are not compared. `data` is flat. Raises UsageError for a file that does not lie in `data`.
    """
    found = np.zeros((len(starts), ARRAY_COLUMNS), np.int64)
    kernels, starts, lengths = _prepared(data, starts, lengths)
    kernels.npz_locate(data, starts, lengths, found)
    return found


def npy_locate(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> Int64s:
    """The same for `.npy` files."""
    found = np.zeros((len(starts), ARRAY_COLUMNS), np.int64)
    kernels, starts, lengths = _prepared(data, starts, lengths)
    kernels.npy_locate(data, starts, lengths, found)
    return found


def examples_locate(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
    """Find the feature `image` in runs of TFRecords of `counts` records each.

    Returns the runs' statuses and the records, shape (sum of counts, RECORD_COLUMNS), in order. Usual is a run that
    holds exactly its records, their lengths' checksums right, each an Example with one bytes value `image` and, if
    there at all, a `size` that fits it. The payloads' checksums are not compared: see `checksums_hold`.
    Raises UsageError for a run that does not lie in `data`, or counts that cannot be.
    """
    kernels, starts, lengths = _prepared(data, starts, lengths)
    counts = np.ascontiguousarray(counts, np.int64)
    total = int(counts.sum()) if len(counts) else 0
    # A record takes 16 bytes at least: a larger count would only make room for nothing.
    if counts.shape != starts.shape or (len(counts) and counts.min() < 0) or total * 16 > int(lengths.sum()):
        raise UsageError("runs cannot hold that many records", expected="16 bytes a record", got=f"{total} records")
    statuses = np.zeros(len(starts), np.int64)
    records = np.zeros((total, RECORD_COLUMNS), np.int64)
    kernels.examples_locate(data, starts, lengths, counts, statuses, records)
    return statuses, records


def checksums_hold(data: NDArray[np.uint8], records: Int64s) -> NDArray[np.bool_]:
    """Tell for each record found by `examples_locate` whether its payload has the checksum stored behind it."""
    starts, lengths, stored = records[:, RECORD_PAYLOAD_AT : RECORD_PAYLOAD_AT + 3].T
    found = crc32c_many(data.data, starts, lengths)
    masked = ((found >> np.uint32(15)) | (found << np.uint32(17))) + np.uint32(_MASK_DELTA)
    holds: NDArray[np.bool_] = masked.astype(np.int64) == stored
    return holds


def records_scan(window: NDArray[np.uint8], left_bytes: int, offsets: Int64s, sizes: Int64s) -> tuple[int, int, int]:
    """Walk along TFRecords by their lengths, from the start of `window`, where a record begins.

    `left_bytes` is how far the file goes on from there. Fills in where each record begins, from the window's start,
    and its size with all that frames it. Returns (records found, where the next one begins, how the walk ended: one
    of SCAN_END, SCAN_MORE, SCAN_FULL, SCAN_BROKEN). The lengths' checksums are compared. A record may end beyond the
    window.
    """
    module = native_kernels()
    kernels = plain_unpacking if module is None else module
    found: tuple[int, int, int] = kernels.records_scan(window, left_bytes, offsets, sizes)
    return found


def _prepared(data: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> tuple[ModuleType, Int64s, Int64s]:
    """Return the kernels to use and the columns in the form they want; checks that every file lies in the buffer."""
    starts, lengths = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(lengths, np.int64)
    if (
        data.ndim != 1
        or data.dtype != np.uint8
        or not data.flags.c_contiguous
        or starts.ndim != 1
        or starts.shape != lengths.shape
    ):
        raise UsageError("files in memory are told in a wrong form", got=f"{data.dtype} {starts.shape} {lengths.shape}")
    if len(starts):
        # Compared without adding up: a sum may pass the largest number there is.
        outside = (starts < 0) | (lengths < 0) | (lengths > len(data)) | (starts > len(data) - lengths)
        if outside.any():
            number = int(outside.argmax())
            raise UsageError(
                "a file does not lie in its buffer",
                where=str(number),
                expected=f"within {len(data)} bytes",
                got=f"{starts[number]} + {lengths[number]}",
            )
    module = native_kernels()
    return (plain_unpacking if module is None else module), starts, lengths
