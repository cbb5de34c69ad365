"""Reading past the page cache: what is read once, into memory that is kept, is not copied through it.

A copy through fresh pages of the cache took longer than the disk. What the cache holds already is read from it.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.units import KiB, MiB
from stoker.kernels.syscalls import cached_pages
from stoker.storage.buffers import address_of

BLOCK_BYTES: Final = 4 * KiB
"""A multiple of every device's block, and what pages of memory are: offsets, lengths and addresses are multiples."""
LEAST_BYTES: Final = MiB
"""Less than this is left to the page cache."""
_CACHED_MOST: Final = 1 / 8
"""Where more than this part of a range is in the cache, it is read from there."""
_REFUSALS: Final = (errno.EINVAL, errno.EOPNOTSUPP)
_HUGE_BYTES: Final = 2 * MiB
_MADV_POPULATE_WRITE: Final = 23
_libc: Final = ctypes.CDLL(None)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def fresh_memory(size_bytes: int) -> NDArray[np.uint8]:
    """Return memory to read into, zero, which begins with a block; in large pages of the system where it gives them."""
    step = _HUGE_BYTES if size_bytes >= _HUGE_BYTES else BLOCK_BYTES
    room = mmap.mmap(-1, max(1, -(-size_bytes // step)) * step, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, np.uint8, size_bytes)


def have_ready(memory: NDArray[np.uint8]) -> None:
    """Have the kernel give pages to fresh memory now: a read then need not wait for them. A hint; it drops the GIL."""
    if memory.size >= LEAST_BYTES:
        _libc.madvise(memory.ctypes.data, memory.size, _MADV_POPULATE_WRITE)


def read_around(handle: int, offset: int, memory: memoryview) -> int:
    """Fill as much of the memory as can be without the page cache, from its beginning on; return how many bytes.

    The handle must be nobody else's meanwhile. 0 where the file system, the kernel or the alignment do not allow it, or
    where the cache has the bytes. Raises OSError as a read does.
    """
    size_bytes = memory.nbytes // BLOCK_BYTES * BLOCK_BYTES
    if size_bytes < LEAST_BYTES or offset % BLOCK_BYTES or address_of(memory) % BLOCK_BYTES:
        return 0
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        if cached_pages(handle, offset, size_bytes) * os.sysconf("SC_PAGESIZE") > size_bytes * _CACHED_MOST:
            return 0
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        return 0  # this kernel does not tell what is cached, or this file system knows only its cache
    try:
        return _read(handle, offset, memory[:size_bytes])
    finally:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags)


def _read(handle: int, offset: int, memory: memoryview) -> int:
    """Read as far as the device gives whole blocks; what is left of a file's end is for the usual way."""
    done = 0
    while done < memory.nbytes and done % BLOCK_BYTES == 0:
        try:
            got = os.preadv(handle, [memory[done:]], offset + done)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            break
        if not got:
            break
        done += got
    return done
