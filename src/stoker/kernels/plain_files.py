"""The plain twin of the native read engines: one request after the other, by the calls that Python offers."""

import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Sequence
from typing import Final

import numpy as np

from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.kernels.files import (
    BLOCK_BYTES,
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
    QUEUE_DEPTH_MAX,
    RANGE_COLUMNS,
    RANGE_FILE,
    RANGE_OFFSET_BYTES,
    RANGE_WANTED_BYTES,
    REQUEST_BYTES,
    REQUEST_BYTES_MAX,
    STATUS_GOOD,
    STATUS_NOT_REGULAR,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
    Int64s,
)
from stoker.kernels.syscalls import cached_pages, open_beneath

# A FIFO must not block the open; for regular files the flag means nothing.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES: Final = 16
BAD_NUMBER: Final = "columns of the ranges hold a number that cannot be"
BAD_END: Final = "a range ends beyond what a file can hold"
BAD_ORDER: Final = "ranges do not stand in the order of their files"


class PlainReadEngine:
    """See `stoker.kernels.files.ReadEngine`."""

    kind = "plain"

    def __init__(self, queue_depth: int = 1, request_bytes: int = REQUEST_BYTES) -> None:
        check_settings(queue_depth, request_bytes)
        self._queue_depth = queue_depth
        self._request_bytes = request_bytes

    @property
    def queue_depth(self) -> int:
        """Return what was set; here one request is under way at once."""
        return self._queue_depth

    @queue_depth.setter
    def queue_depth(self, value: int) -> None:
        check_settings(value, self._request_bytes)
        self._queue_depth = value

    @property
    def request_bytes(self) -> int:
        """Return the size of the requests that longer ranges are split into."""
        return self._request_bytes

    @request_bytes.setter
    def request_bytes(self, value: int) -> None:
        check_settings(self._queue_depth, value)
        self._request_bytes = value

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
        check_flags(flags)
        check_shapes(ranges, ranges_done)
        check_file_columns(files_done, len(keys))
        check_numbers(ranges, len(keys), ordered=True)
        ends = np.searchsorted(ranges[:, RANGE_FILE], np.arange(len(keys)), side="right").tolist()
        first = 0
        for number, (key, last) in enumerate(zip(keys, ends, strict=True)):
            file, size_bytes = _open(folder, key, flags, files_done[number])
            try:
                if file is not None and not flags & os.O_DIRECT:
                    _advise(file, size_bytes, ranges[first:last])
                for index in range(first, last):
                    self._read(file, size_bytes, ranges[index], ranges_done[index], residency=residency)
            finally:
                if file is not None:
                    os.close(file)
            first = last

    def read_open(self, files: Sequence[int], ranges: Int64s, *, residency: bool, ranges_done: Int64s) -> None:
        """Read range by range."""
        check_shapes(ranges, ranges_done)
        check_numbers(ranges, len(files), ordered=False)
        for wanted, done in zip(ranges, ranges_done, strict=True):
            self._read(files[int(wanted[RANGE_FILE])], 0, wanted, done, residency=residency)

    def _read(self, file: int | None, size_bytes: int, wanted: Int64s, done: Int64s, *, residency: bool) -> None:
        _, offset_bytes, wanted_bytes, _, _ = wanted.tolist()
        done[DONE_CACHED_BYTES] = -1
        done[DONE_READ_BYTES] = 0
        done[DONE_STARTED_NS] = clock.monotonic_ns()
        if file is None:
            done[DONE_STATUS] = STATUS_NOT_TRIED
        else:
            try:
                if residency:
                    done[DONE_CACHED_BYTES] = _cached_bytes(file, offset_bytes, wanted_bytes)
                got_bytes = self._fill(file, size_bytes, wanted.tolist()) if wanted_bytes else 0
                done[DONE_READ_BYTES] = got_bytes
                done[DONE_STATUS] = STATUS_GOOD if got_bytes >= wanted_bytes else STATUS_SHORT
            except OSError as error:
                done[DONE_STATUS] = error.errno or errno.EIO
        done[DONE_ENDED_NS] = clock.monotonic_ns()

    def _fill(self, file: int, size_bytes: int, wanted: list[int]) -> int:
        """Read until the room is full or the file ends; return the bytes read."""
        _, offset_bytes, wanted_bytes, room_bytes, address = wanted
        done_bytes = 0
        came_short = False
        while done_bytes < room_bytes:
            length = min(self._request_bytes, room_bytes - done_bytes)
            position = offset_bytes + done_bytes
            try:
                got_bytes = _preadv(file, address + done_bytes, length, position)
            except OSError as error:
                # Past the page cache nothing but the file's end lies at a position that is not a whole block.
                if error.errno == errno.EINVAL and came_short and position % mmap.PAGESIZE:
                    break
                raise
            done_bytes += got_bytes
            if got_bytes == 0:
                break
            came_short = got_bytes < length
            # Whoever has the wanted bytes need not ask once more to be told that this was the end.
            position += got_bytes
            if done_bytes >= wanted_bytes and came_short and (position % mmap.PAGESIZE or position == size_bytes):
                break
        return done_bytes

    def register(self, address: int, size_bytes: int) -> bool:
        """Return False: there is nobody to tell."""
        return False

    def unregister(self, address: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Nothing to release."""


def check_settings(queue_depth: int, request_bytes: int) -> None:
    """Raise UsageError unless an engine can work with these."""
    if not 1 <= queue_depth <= QUEUE_DEPTH_MAX:
        raise UsageError("queue depth is out of bounds", expected=f"1 to {QUEUE_DEPTH_MAX}", got=str(queue_depth))
    if not 0 < request_bytes <= REQUEST_BYTES_MAX or request_bytes % BLOCK_BYTES:
        raise UsageError(
            "request size is out of bounds", expected="a multiple of 4 KiB up to 1 GiB", got=f"{request_bytes} bytes"
        )


def check_flags(flags: int) -> None:
    """Raise UsageError for flags of open(2) that would write."""
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
        raise UsageError("flags of a read engine must be for reading", got=oct(flags))


def check_shapes(ranges: Int64s, ranges_done: Int64s) -> None:
    """Raise UsageError unless the columns of the ranges are what an engine can read and fill."""
    if ranges.ndim != 2 or ranges.shape[1] != RANGE_COLUMNS or ranges_done.shape != (len(ranges), DONE_COLUMNS):
        raise UsageError("columns of the ranges have a wrong shape", got=f"{ranges.shape} and {ranges_done.shape}")
    if not (_is_plain(ranges) and _is_plain(ranges_done) and ranges_done.flags.writeable):
        raise UsageError("columns of the ranges are not C-ordered int64, or must not be written")


def check_file_columns(files_done: Int64s, files: int) -> None:
    """Raise UsageError unless the columns of the files are what an engine can fill."""
    if files_done.shape != (files, FILE_COLUMNS):
        raise UsageError("columns of the files have a wrong shape", got=str(files_done.shape))
    if not (_is_plain(files_done) and files_done.flags.writeable):
        raise UsageError("columns of the files are not C-ordered int64, or must not be written")


def _is_plain(columns: Int64s) -> bool:
    return columns.dtype == np.int64 and columns.flags.c_contiguous and columns.flags.aligned


def check_numbers(ranges: Int64s, files: int, *, ordered: bool) -> None:
    """Raise UsageError unless every number can be; `ordered`: the ranges stand in the order of their files."""
    if len(ranges) == 0:
        return
    file, offset_bytes, wanted_bytes, room_bytes, _ = ranges.T
    if ranges.min() < 0 or file.max() >= files or (wanted_bytes > room_bytes).any():
        raise UsageError(BAD_NUMBER)
    if (offset_bytes > 2**63 - 1 - room_bytes).any():
        raise UsageError(BAD_END)
    if ordered and (np.diff(file) < 0).any():
        raise UsageError(BAD_ORDER)


def _open(folder: int, key: str, flags: int, done: Int64s) -> tuple[int | None, int]:
    """Open a file, fill in what came of it and return its descriptor and size; None without one."""
    done[FILE_SIZE_BYTES] = -1
    done[FILE_STARTED_NS] = clock.monotonic_ns()
    file = None
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
            file = None
    except OSError as error:
        done[FILE_STATUS] = error.errno or errno.EIO
    done[FILE_OPENED_NS] = clock.monotonic_ns()
    return file, int(done[FILE_SIZE_BYTES])


def _advise(file: int, size_bytes: int, ranges: Int64s) -> None:
    """Keep the kernel from reading ahead what nobody asked for: more than a page behind the first byte wanted."""
    wanted = ranges[ranges[:, RANGE_WANTED_BYTES] > 0]
    if len(wanted):
        asked_bytes = sum(wanted[:, RANGE_WANTED_BYTES].tolist())
        if size_bytes - mmap.PAGESIZE - asked_bytes > int(wanted[:, RANGE_OFFSET_BYTES].min()):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)


def _preadv(file: int, address: int, length_bytes: int, position: int) -> int:
    into = (ctypes.c_char * length_bytes).from_address(address)
    for _ in range(_TRIES):
        try:
            return os.preadv(file, [into], position)
        except BlockingIOError:  # a driver that is not ready; regular files never say so
            continue
    return os.preadv(file, [into], position)


def _cached_bytes(file: int, offset_bytes: int, length_bytes: int) -> int:
    if length_bytes == 0:
        return 0
    try:
        return min(cached_pages(file, offset_bytes, length_bytes) * mmap.PAGESIZE, length_bytes)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
            return -1
        raise
