"""Checksums, alone and in one pass with a copy: the typed face of the check kernels.

Every buffer is contiguous, of any alignment and any element type. A copy's source and target are of one size and do
not overlap; the source must not change meanwhile. The native kernels drop the GIL for all but small buffers.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import plain_check
from stoker.kernels.native import native_kernels

Readable = bytes | bytearray | memoryview
_SHORT_BYTES: Final = 240
"""XXH3 hashes up to so many bytes in other ways; the library knows them, and one pass more costs nothing."""


def crc32c(data: Readable, value: int = 0) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of `data`, going on from `value`, the CRC of what came before it."""
    native = native_kernels()
    if native is None:
        return plain_check.crc32c(memoryview(data), value)
    return int(native.crc32c(data, value))


def crc32c_many(
    buffer: Readable, starts: Sequence[int] | NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Return the CRC-32C of each range of `buffer`, uint32 of shape (n,): one call for many small records.

    Ranges may touch and overlap, in any order. Raises CorruptError for one that leaves the buffer.
    """
    ranges = np.array((starts, lengths), np.int64)
    values = np.zeros(ranges.shape[1], np.uint32)
    done = (native_kernels() or plain_check).crc32c_many(memoryview(buffer), ranges, values)
    _require_ranges(done, buffer, ranges)
    return values


def xxh3_128(data: Readable) -> bytes:
    """Return the XXH3-128 of `data`, seed 0: 16 bytes, the highest first."""
    return xxhash.xxh3_128_digest(data)


def xxh3_128_many(
    buffer: Readable, starts: Sequence[int] | NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the XXH3-128 of each range of `buffer`, uint8 of shape (n, 16), as `crc32c_many`."""
    ranges = np.array((starts, lengths), np.int64)
    digests = np.zeros((ranges.shape[1], 16), np.uint8)
    done = (native_kernels() or plain_check).xxh3_128_many(memoryview(buffer), ranges, digests)
    _require_ranges(done, buffer, ranges)
    return digests


def _require_ranges(done: int, buffer: Readable, ranges: NDArray[np.int64]) -> None:
    if done < ranges.shape[1]:
        start, length = ranges[:, done].tolist()
        raise CorruptError(
            "range to checksum leaves its buffer",
            expected=f"within {memoryview(buffer).nbytes} bytes",
            got=f"{length} bytes at {start}",
        )


def copy_crc32c(source: Readable, target: memoryview, value: int = 0) -> int:
    """Copy `source` to `target` and return its CRC-32C, going on from `value`, in one pass over the memory.

    Raises UsageError for memory of two sizes, or that overlaps.
    """
    found = (native_kernels() or plain_check).copy_crc32c(memoryview(source), target, value)
    return _checked(found, source, target)


def xxh3_64(data: Readable) -> int:
    """Return the XXH3-64 of `data`, seed 0."""
    return int(xxhash.xxh3_64_intdigest(data))


def copy_xxh3(source: Readable, target: memoryview) -> int:
    """Copy `source` to `target` and return its XXH3-64, seed 0, in one pass over the memory.

    Raises UsageError for memory of two sizes, or that overlaps.
    """
    given = memoryview(source)
    kernels = native_kernels() if given.nbytes > _SHORT_BYTES else None
    return _checked((kernels or plain_check).copy_xxh3(given, target), source, target)


def _checked(found: int | None, source: Readable, target: memoryview) -> int:
    if found is None:
        raise UsageError(
            "memory does not fit for a copy",
            expected=f"{memoryview(source).nbytes} bytes apart from the source",
            got=f"{target.nbytes} bytes",
        )
    return found
