"""The few calls of the Linux kernel that Python does not offer.

Sources: openat2(2), renameat2(2), statx(2), fstatfs(2); cachestat in the kernel's linux/mman.h.
"""

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Any, Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2: Final = 437
_SYS_CACHESTAT: Final = 451
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RENAME_NOREPLACE: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_STATX_DIOALIGN: Final = 0x2000
_OPENAT2_TRIES: Final = 16
TMPFS_MAGIC: Final = 0x01021994
RAMFS_MAGIC: Final = 0x858458F6

_syscall = _LIBC.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_BYTES: Final = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


@cache
def _how(flags: int) -> Any:
    """Return a pointer to what openat2 is told; the kernel only reads it, so threads share it."""
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    return ctypes.byref(_OpenHow(flags | os.O_CLOEXEC, 0, resolve))


class _CacheRange(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _CacheCounts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def open_beneath(folder: int, path: bytes, flags: int) -> int:
    """Open what exists at `path` below the open `folder`, following no symbolic link; return the descriptor.

    Raises OSError: EXDEV for a path that leaves the folder, ELOOP for a link, ENOSYS before kernel 5.6.
    """
    how = _how(flags)
    for _ in range(_OPENAT2_TRIES):
        opened = int(_syscall(_SYS_OPENAT2, folder, path, how, _HOW_BYTES))
        if opened >= 0:
            return opened
        # EAGAIN: a rename elsewhere raced with the lookup, which the kernel then does not call safe
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise _failure(os.fsdecode(path))


def rename_no_replace(folder: int, source: str, target: str) -> None:
    """Rename inside `folder` unless `target` exists. Raises OSError: EEXIST, or EINVAL where it is not supported."""
    if _LIBC.renameat2(folder, os.fsencode(source), folder, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        raise _failure(target)


def cached_pages(file: int, offset_bytes: int, length_bytes: int) -> int:
    """Return how many pages of the range the page cache holds. Raises OSError: ENOSYS before kernel 6.5, EPERM."""
    return int(_cache_counts(file, offset_bytes, length_bytes).cached)


def unwritten_pages(file: int) -> int:
    """Return how many pages of an open file are dirty or on their way to the device. Raises OSError as above."""
    counts = _cache_counts(file, 0, 0)
    return int(counts.dirty) + int(counts.writeback)


def _cache_counts(file: int, offset_bytes: int, length_bytes: int) -> _CacheCounts:
    span, counts = _CacheRange(offset_bytes, length_bytes), _CacheCounts()
    if _syscall(_SYS_CACHESTAT, file, ctypes.byref(span), ctypes.byref(counts), 0) != 0:
        raise _failure("cachestat")
    return counts


def resident_pages(address: int, length_bytes: int) -> int:
    """Return how many pages of a mapping at a page-aligned `address` are in memory."""
    pages = -(-length_bytes // os.sysconf("SC_PAGESIZE"))
    marks = ctypes.create_string_buffer(pages)
    if _LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length_bytes), marks) != 0:
        raise _failure("mincore")
    return sum(mark & 1 for mark in marks.raw)


def file_system_magic(file: int) -> int:
    """Return the number that names the kind of file system an open file lies on."""
    answer = ctypes.create_string_buffer(512)
    if _LIBC.fstatfs(file, answer) != 0:
        raise _failure("fstatfs")
    return int(struct.unpack_from("@l", answer)[0]) & 0xFFFFFFFF


def direct_alignment(file: int) -> int:
    """Return the alignment in bytes that O_DIRECT asks of memory and offsets, 0 when the kernel does not tell."""
    answer = ctypes.create_string_buffer(256)
    if _LIBC.statx(file, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, answer) != 0:
        raise _failure("statx")
    (mask,) = struct.unpack_from("=I", answer, 0)
    memory, offset = struct.unpack_from("=II", answer, 0x98)
    return max(memory, offset) if mask & _STATX_DIOALIGN else 0
