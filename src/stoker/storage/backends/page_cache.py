"""What of a file this host's page cache holds, and how to make it forget."""

import errno
import mmap
import os
from typing import Final

import numpy as np

from stoker.core.units import GiB
from stoker.kernels.syscalls import cached_pages, resident_pages, unwritten_pages

_NOT_OFFERED: Final = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
_WINDOW_BYTES: Final = GiB


def cached_bytes(file: int, offset_bytes: int, length_bytes: int) -> int | None:
    """Return how many bytes of the range of an open file are cached, counted in whole pages but never too many.

    None when neither cachestat(2) nor mincore(2) may tell.
    """
    if length_bytes == 0:
        return 0
    try:
        pages = cached_pages(file, offset_bytes, length_bytes)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        return cached_bytes_by_mapping(file, offset_bytes, length_bytes)
    return min(pages * mmap.PAGESIZE, length_bytes)


def unwritten_bytes(file: int) -> int | None:
    """Return how many bytes of an open file lie in the page cache and not on the device yet, in whole pages.

    None where cachestat(2) may not tell.
    """
    try:
        return unwritten_pages(file) * mmap.PAGESIZE
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        return None


def cached_bytes_by_mapping(file: int, offset_bytes: int, length_bytes: int) -> int | None:
    """Return the same through mincore(2) on a mapping, window by window.

    None for a file that we neither own nor may write: the kernel then calls every page resident.
    """
    if not _mincore_is_honest(file):
        return None
    first = offset_bytes - offset_bytes % mmap.PAGESIZE
    end = offset_bytes + length_bytes
    pages = 0
    for start in range(first, end, _WINDOW_BYTES):
        span_bytes = min(_WINDOW_BYTES, end - start)
        with mmap.mmap(file, span_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=start) as mapping:
            seen = np.frombuffer(mapping, dtype=np.uint8)
            pages += resident_pages(seen.ctypes.data, span_bytes)
            del seen
    return min(pages * mmap.PAGESIZE, length_bytes)


def _mincore_is_honest(file: int) -> bool:
    owner = os.fstat(file).st_uid
    return os.geteuid() in (0, owner) or os.access(f"/proc/self/fd/{file}", os.W_OK)


def evict(file: int) -> None:
    """Write the file's dirty pages out and drop all its clean ones from the page cache."""
    os.fdatasync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
