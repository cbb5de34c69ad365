"""The plain twin of the native read engines: one request after the other, by the calls that Python offers."""

import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Sequence
from typing import Final

from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.kernels.files import (
    DONE_CACHED_BYTES,
    DONE_COLUMNS,
    DONE_ENDED_NS,
    DONE_READ_BYTES,
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_COLUMNS,
    FILE_OPENED_NS,
    FILE_SIZE_BYTES,
    FILE_STARTED_NS,
    FILE_STATUS,
    RANGE_COLUMNS,
    RANGE_FILE,
    REQUEST_BYTES,
    STATUS_GOOD,
    STATUS_NOT_REGULAR,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
    Int64s,
)
from stoker.kernels.syscalls import cached_pages, open_beneath

# A FIFO must not block the open; for regular files the flag means nothing.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class PlainReadEngine:
    """See `stoker.kernels.files.ReadEngine`."""

    kind = "plain"

    def __init__(self, queue_depth: int = 1, request_bytes: int = REQUEST_BYTES) -> None:
        self.queue_depth = queue_depth
        self.request_bytes = request_bytes

    def read_files(
        self,
        folder: int,
        keys: Sequence[str],
        flags: int,
        ranges: Int64s,
        *,
        residency: bool,
        files_done: Int64s,
        ranges_done: Int64s,
    ) -> None:
        """Open, read and close file by file."""
        check_columns(ranges, ranges_done, len(keys))
        if files_done.shape != (len(keys), FILE_COLUMNS):
            raise UsageError("columns of the files have a wrong shape", got=str(files_done.shape))
        owners = ranges[:, RANGE_FILE].tolist()
        first = 0
        for number, key in enumerate(keys):
            last = first
            while last < len(owners) and owners[last] == number:
                last += 1
            file = _open(folder, key, flags, files_done[number])
            try:
                for index in range(first, last):
                    self._read(file, ranges[index], ranges_done[index], residency=residency)
            finally:
                if file >= 0:
                    os.close(file)
            first = last
        if first != len(owners):
            raise UsageError("ranges do not stand in the order of their files", got=f"range {first}")

    def read_open(self, files: Sequence[int], ranges: Int64s, *, residency: bool, ranges_done: Int64s) -> None:
        """Read range by range."""
        check_columns(ranges, ranges_done, len(files))
        for wanted, done in zip(ranges, ranges_done, strict=True):
            self._read(files[int(wanted[RANGE_FILE])], wanted, done, residency=residency)

    def _read(self, file: int, wanted: Int64s, done: Int64s, *, residency: bool) -> None:
        _, offset_bytes, wanted_bytes, room_bytes, address = wanted.tolist()
        done[DONE_CACHED_BYTES] = -1
        done[DONE_READ_BYTES] = 0
        done[DONE_STARTED_NS] = clock.monotonic_ns()
        if file < 0:
            done[DONE_STATUS] = STATUS_NOT_TRIED
        else:
            try:
                if residency:
                    done[DONE_CACHED_BYTES] = _cached_bytes(file, offset_bytes, wanted_bytes)
                got_bytes = self._fill(file, offset_bytes, room_bytes, address)
                done[DONE_READ_BYTES] = got_bytes
                done[DONE_STATUS] = STATUS_GOOD if got_bytes >= wanted_bytes else STATUS_SHORT
            except OSError as error:
                done[DONE_STATUS] = error.errno or errno.EIO
        done[DONE_ENDED_NS] = clock.monotonic_ns()

    def _fill(self, file: int, offset_bytes: int, room_bytes: int, address: int) -> int:
        done_bytes = 0
        while done_bytes < room_bytes:
            length = min(self.request_bytes, room_bytes - done_bytes)
            into = (ctypes.c_char * length).from_address(address + done_bytes)
            got_bytes = os.preadv(file, [into], offset_bytes + done_bytes)
            done_bytes += got_bytes
            if got_bytes == 0 or (got_bytes < length and got_bytes % mmap.PAGESIZE):
                break  # the end: asking once more would only say 0, and past the page cache EINVAL
        return done_bytes

    def register(self, address: int, size_bytes: int) -> bool:
        """Return False: there is nobody to tell."""
        return False

    def unregister(self, address: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Nothing to release."""


def check_columns(ranges: Int64s, ranges_done: Int64s, files: int) -> None:
    """Raise UsageError unless the columns fit together and every number can be."""
    if ranges.ndim != 2 or ranges.shape[1] != RANGE_COLUMNS or ranges_done.shape != (len(ranges), DONE_COLUMNS):
        raise UsageError("columns of the ranges have a wrong shape", got=f"{ranges.shape} and {ranges_done.shape}")
    if len(ranges) == 0:
        return
    file, offset_bytes, wanted_bytes, room_bytes, _ = ranges.T
    if ranges.min() < 0 or file.max() >= files or (wanted_bytes > room_bytes).any():
        raise UsageError("columns of the ranges hold a number that cannot be")
    if (offset_bytes > 2**63 - 1 - room_bytes).any():
        raise UsageError("a range ends beyond what a file can hold")


def _open(folder: int, key: str, flags: int, done: Int64s) -> int:
    """Open a file, fill in what came of it and return its descriptor, -1 for none."""
    done[FILE_SIZE_BYTES] = -1
    done[FILE_STARTED_NS] = clock.monotonic_ns()
    file = -1
    try:
        if "\0" in key:
            raise OSError(errno.EINVAL, "key holds a zero byte")
        file = open_beneath(folder, os.fsencode(key), flags | _READ)
        facts = os.fstat(file)
        if stat.S_ISREG(facts.st_mode):
            done[FILE_STATUS] = STATUS_GOOD
            done[FILE_SIZE_BYTES] = facts.st_size
        else:
            done[FILE_STATUS] = STATUS_NOT_REGULAR
            os.close(file)
            file = -1
    except OSError as error:
        done[FILE_STATUS] = error.errno or errno.EIO
    done[FILE_OPENED_NS] = clock.monotonic_ns()
    return file


def _cached_bytes(file: int, offset_bytes: int, length_bytes: int) -> int:
    if length_bytes == 0:
        return 0
    try:
        return min(cached_pages(file, offset_bytes, length_bytes) * mmap.PAGESIZE, length_bytes)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
            return -1
        raise
