"""The few things that logs and checkpoints ask of a file system, so that a test can stand in for a failing one.

What they may rely on: a file's bytes are durable after `sync`, its name after `sync_folder`; before that, any part of
either may be there after a power loss, down to single sectors.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from stoker.pages.errors import OutOfSpace, PagesError
from stoker.pages.reading_around import read_around

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_BYTES_MAX: Final = 1 << 30


_ZEROS: Final = memoryview(bytes(1 << 20))
_SYNC_FILE_RANGE_WRITE: Final = 2
_libc: Final = ctypes.CDLL(None)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_PIECES_MAX: Final = 1024
"""What one pwritev takes (IOV_MAX of Linux)."""


class Disk(Protocol):
    """Files by path; a handle is an open file. Every method raises OSError."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Return a handle for reading and writing; `create` makes a new file and fails where one is."""

    def close(self, handle: int) -> None:
        """Close a handle."""

    def write(self, handle: int, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all pieces, one behind the other, from an offset on."""

    def reserve(self, handle: int, size_bytes: int) -> None:
        """Have room for so many bytes; the file has them, zero, afterwards."""

    def nameless(self, folder: Path, size_bytes: int, going: Callable[[], bool]) -> int | None:
        """Return a handle of a new file of zeros that are on the disk, and which has no name in its folder yet.

        It takes time: None when `going` says no meanwhile.
        """

    def link(self, handle: int, path: Path) -> None:
        """Give a nameless file a name, which nothing has."""

    def start(self, handle: int, offset: int, size_bytes: int) -> None:
        """Have the disk begin with bytes that were written: a sync that follows later waits for less. No promise."""

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut or grow a file to so many bytes."""

    def sync(self, handle: int, *, full: bool = False) -> None:
        """Make a file's bytes durable; `full` with all its metadata."""

    def sync_folder(self, folder: Path) -> None:
        """Make names in a folder durable."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, replacing what had it."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """Return bytes of a file: fewer where it ends."""

    def read_into(self, path: Path, offset: int, memory: memoryview) -> int:
        """Fill memory with bytes of a file; return how many: fewer where it ends.

        What is not cached is read fastest into memory that begins with a block, from a block's beginning on.
        """

    def size_bytes(self, path: Path) -> int:
        """Return a file's size."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in order."""


class OsDisk:
    """The real file system."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """See Disk."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        return os.open(path, flags, 0o600)

    def close(self, handle: int) -> None:
        """See Disk."""
        os.close(handle)

    def write(self, handle: int, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """See Disk."""
        for start in range(0, len(pieces), _PIECES_MAX):
            waiting = [memoryview(piece) for piece in pieces[start : start + _PIECES_MAX]]
            while waiting:
                written = os.pwritev(handle, waiting, offset)
                offset += written
                waiting = _behind(waiting, written)

    def reserve(self, handle: int, size_bytes: int) -> None:
        """See Disk."""
        try:
            os.posix_fallocate(handle, 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            os.ftruncate(handle, size_bytes)  # a file system without reservations: room is found out when writing

    def nameless(self, folder: Path, size_bytes: int, going: Callable[[], bool]) -> int | None:
        """See Disk."""
        handle = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size_bytes)
            for start in range(0, size_bytes, len(_ZEROS)):
                if not going():
                    os.close(handle)
                    return None
                os.pwrite(handle, _ZEROS[: size_bytes - start], start)
                os.fdatasync(handle)  # piece by piece: who syncs meanwhile waits for one of them at most
        except BaseException:
            os.close(handle)
            raise
        return handle

    def link(self, handle: int, path: Path) -> None:
        """See Disk."""
        # Only with a folder given, though it means nothing here, does Python follow the link.
        os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)

    def start(self, handle: int, offset: int, size_bytes: int) -> None:
        """See Disk."""
        _libc.sync_file_range(handle, offset, size_bytes, _SYNC_FILE_RANGE_WRITE)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """See Disk."""
        os.ftruncate(handle, size_bytes)

    def sync(self, handle: int, *, full: bool = False) -> None:
        """See Disk."""
        if full:
            os.fsync(handle)
        else:
            os.fdatasync(handle)

    def sync_folder(self, folder: Path) -> None:
        """See Disk."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """See Disk."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """See Disk."""
        path.unlink()

    def read(self, path: Path, offset: int = 0, size_bytes: int = -1) -> bytes:
        """See Disk."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    def read_into(self, path: Path, offset: int, memory: memoryview) -> int:
        """See Disk."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = read_around(handle, offset, memory)
            while done < memory.nbytes:
                got = os.preadv(handle, [memory[done : done + _READ_BYTES_MAX]], offset + done)
                if not got:
                    break
                done += got
            return done
        finally:
            os.close(handle)

    def size_bytes(self, path: Path) -> int:
        """See Disk."""
        return path.stat().st_size

    def names(self, folder: Path) -> list[str]:
        """See Disk."""
        return sorted(path.name for path in folder.iterdir())


def _behind(pieces: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of pieces of which so many bytes are written."""
    for index, piece in enumerate(pieces):
        if written < piece.nbytes:
            return [piece[written:], *pieces[index + 1 :]]
        written -= piece.nbytes
    return []


def disk_error(error: OSError, what: str, path: Path) -> PagesError:
    """Return our error for a failure of the disk."""
    kind = OutOfSpace if error.errno in _FULL else PagesError
    return kind(what, where=str(path), got=error.strerror or str(error))
