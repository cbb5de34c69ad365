"""Writing around the page cache: what is large, durable soon and rarely read at once is not copied into it.

A copy into fresh pages of the cache was half of what a chunk server's processor did for a large shard, and the pages
pushed out others that are read. Where the file system or the device refuses, the usual way is taken.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from stoker.core.errors import StokerError
from stoker.core.units import KiB, MiB
from stoker.storage.buffers import BufferPool, address_of

LENGTH_ALIGN_BYTES: Final = 4 * KiB
"""A multiple of every device's block."""
_MEMORY_ALIGN_BYTES: Final = 512
_PIECES_MAX: Final = 1024
_REFUSALS: Final = (errno.EINVAL, errno.EOPNOTSUPP)
_stages: Final = BufferPool(64 * MiB)


def write_around(handle: int, offset: int, pieces: Sequence[memoryview]) -> int:
    """Write as many bytes of the pieces as can be without the page cache, from the first one on; return how many.

    The handle must be nobody else's meanwhile. Raises OSError as a write does.
    """
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    total_bytes = sum(len(piece) for piece in pieces) // LENGTH_ALIGN_BYTES * LENGTH_ALIGN_BYTES
    if offset % LENGTH_ALIGN_BYTES or not total_bytes:
        return 0
    with ExitStack() as held:
        aligned = _aligned(pieces, total_bytes, held)
        if aligned is None or not _set(handle, flags | os.O_DIRECT):
            return 0
        try:
            return _write(handle, offset, aligned)
        finally:
            _set(handle, flags)


def _set(handle: int, flags: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return False
    return True


def _aligned(pieces: Sequence[memoryview], total_bytes: int, held: ExitStack) -> list[memoryview] | None:
    """Return the first `total_bytes` in memory that begins where the device wants it; None without room for that.

    What lies elsewhere is copied: one pass over memory that is used again costs a fraction of one over fresh pages.
    """
    if any(len(piece) % LENGTH_ALIGN_BYTES for piece in pieces[:-1]) or len(pieces) > _PIECES_MAX:
        return _copied(pieces, total_bytes, held)
    found: list[memoryview] = []
    for piece in pieces:
        part = piece[: len(piece) // LENGTH_ALIGN_BYTES * LENGTH_ALIGN_BYTES]
        if not len(part):
            continue
        whole = [part] if address_of(part) % _MEMORY_ALIGN_BYTES == 0 else _copied([part], len(part), held)
        if whole is None:
            return None
        found += whole
    return found


def _copied(pieces: Sequence[memoryview], total_bytes: int, held: ExitStack) -> list[memoryview] | None:
    try:
        stage = held.enter_context(_stages.acquire(total_bytes, timeout_seconds=0.0)).view
    except StokerError:
        return None
    at = 0
    for piece in pieces:
        part = piece[: total_bytes - at]
        stage[at : at + len(part)] = part
        at += len(part)
    return [stage]


def _write(handle: int, offset: int, pieces: list[memoryview]) -> int:
    """Write pieces as far as the device takes them so."""
    done = 0
    waiting = pieces
    while waiting:
        try:
            count = os.pwritev(handle, waiting, offset + done)
        except OSError as error:
            if error.errno in _REFUSALS:
                return done
            raise
        done += count
        while waiting and count >= len(waiting[0]):
            count -= len(waiting[0])
            waiting = waiting[1:]
        if waiting and count:
            waiting = [waiting[0][count:], *waiting[1:]]
    return done
