"""The plain twin of the check kernels: the packages `crc32c` and `xxhash`, and copies of NumPy.

None stands for memory that does not fit for a copy.
"""

from collections.abc import Iterator
from typing import Final

import crc32c as crc32c_package
import numpy as np
import xxhash
from numpy.typing import NDArray

_BLOCK_BYTES: Final = 128 * 1024
"""Copied, and checksummed while it is in the cache."""


def crc32c(data: memoryview, value: int) -> int:
    """Return the CRC-32C of `data`, going on from `value`."""
    return int(crc32c_package.crc32c(data, value))


def copy_crc32c(source: memoryview, target: memoryview, value: int) -> int | None:
    """Copy, and return the CRC-32C."""
    if not _fit(source, target):
        return None
    for piece in _copied(source, target):
        value = crc32c(piece.data, value)
    return value


def copy_xxh3(source: memoryview, target: memoryview) -> int | None:
    """Copy, and return the XXH3-64."""
    if not _fit(source, target):
        return None
    digest = xxhash.xxh3_64()
    for piece in _copied(source, target):
        digest.update(piece.data)
    return int(digest.intdigest())


def crc32c_many(buffer: memoryview, ranges: NDArray[np.int64], values: NDArray[np.uint32]) -> int:
    """Fill `values` with the CRC-32C of the ranges (starts, then lengths); return how many came before a bad one."""
    for index, data in enumerate(_ranges(buffer, ranges)):
        if data is None:
            return index
        values[index] = crc32c(data, 0)
    return len(values)


def xxh3_128_many(buffer: memoryview, ranges: NDArray[np.int64], digests: NDArray[np.uint8]) -> int:
    """Fill `digests`, 16 bytes each, with the XXH3-128 of the ranges; return as `crc32c_many`."""
    for index, data in enumerate(_ranges(buffer, ranges)):
        if data is None:
            return index
        digests[index] = np.frombuffer(xxhash.xxh3_128_digest(data), np.uint8)
    return len(digests)


def _ranges(buffer: memoryview, ranges: NDArray[np.int64]) -> Iterator[memoryview | None]:
    """Yield the bytes of ranges; None for one that leaves the buffer."""
    data = np.frombuffer(buffer, np.uint8).data
    for start, length in ranges.T.tolist():
        yield data[start : start + length] if 0 <= start <= start + length <= len(data) else None


def _fit(source: memoryview, target: memoryview) -> bool:
    """Tell whether they are of one size and apart from each other."""
    given, taking = np.frombuffer(source, np.uint8), np.frombuffer(target, np.uint8)
    return given.size == taking.size and not np.may_share_memory(given, taking)


def _copied(source: memoryview, target: memoryview) -> Iterator[NDArray[np.uint8]]:
    given, taking = np.frombuffer(source, np.uint8), np.frombuffer(target, np.uint8)
    for start in range(0, given.size, _BLOCK_BYTES):
        piece = taking[start : start + _BLOCK_BYTES]
        np.copyto(piece, given[start : start + _BLOCK_BYTES])
        yield piece
