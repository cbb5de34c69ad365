"""What a disk asks of a file system, so that a test can stand in for one that fails or loses power."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from stoker.core.errors import DeniedError, NoSpaceError, NotFoundError, StokerError, StoreError
from stoker.fs.disk.direct import write_around
from stoker.pages.disk import OsDisk

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAILING: Final = (errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO)
"""What a disk says that is failing, read-only or pulled out: nothing more is written to it."""


class Files(Protocol):
    """Files by path; a handle is an open file. Every method raises OSError.

    A file's bytes are durable after `sync`, its name after `sync_folder`; before that any part of either may be there
    after a power failure, down to single sectors.
    """

    def open(self, path: Path, *, create: bool = False) -> int:
        """Return a handle for reading and writing; `create` makes a new file and fails where one is."""

    def open_reading(self, path: Path) -> int:
        """Return a handle for reading."""

    def close(self, handle: int) -> None:
        """Close a handle."""

    def write(self, handle: int, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all pieces, one behind the other, from an offset on."""

    def write_around(self, handle: int, offset: int, pieces: Sequence[memoryview]) -> None:
        """Write as `write` does, past the page cache where that can be; nobody else uses the handle meanwhile."""

    def fill(self, handle: int, offset: int, memory: memoryview) -> int:
        """Fill memory with bytes of a file; return how many: fewer where it ends."""

    def reserve(self, handle: int, size_bytes: int) -> None:
        """Have room for so many bytes; the file has them, zero, afterwards."""

    def sync(self, handle: int, *, full: bool = False) -> None:
        """Make a file's bytes durable; `full` with all its metadata."""

    def sync_folder(self, folder: Path) -> None:
        """Make names in a folder durable."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, replacing what had it."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def length(self, handle: int) -> int:
        """Return the size of an open file, bytes."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in order; none where there is no folder."""

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, in order; none where there is no folder."""

    def make_folder(self, folder: Path) -> None:
        """Have a folder there, its name durable."""

    def room(self, folder: Path) -> tuple[int, int]:
        """Return the capacity of the file system and what is free of it, bytes."""

    def is_read_only(self, folder: Path) -> bool:
        """Tell whether the file system takes no writes."""


class SystemFiles(OsDisk):
    """The real file system."""

    def open_reading(self, path: Path) -> int:
        """See Files."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def write_around(self, handle: int, offset: int, pieces: Sequence[memoryview]) -> None:
        """See Files."""
        done = write_around(handle, offset, pieces)
        left, skipped = list(pieces), done
        while left and skipped >= len(left[0]):
            skipped -= len(left.pop(0))
        if left:
            self.write(handle, offset + done, [left[0][skipped:], *left[1:]])

    def fill(self, handle: int, offset: int, memory: memoryview) -> int:
        """See Files."""
        done = 0
        while done < memory.nbytes:
            got = os.preadv(handle, [memory[done:]], offset + done)
            if not got:
                break
            done += got
        return done

    def length(self, handle: int) -> int:
        """See Files."""
        return os.fstat(handle).st_size

    def names(self, folder: Path) -> list[str]:
        """See Files."""
        try:
            return sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return []

    def folders(self, folder: Path) -> list[Path]:
        """See Files."""
        try:
            with os.scandir(folder) as entries:
                return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def make_folder(self, folder: Path) -> None:
        """See Files."""
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            self.sync_folder(folder.parent)

    def room(self, folder: Path) -> tuple[int, int]:
        """See Files."""
        found = os.statvfs(folder)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def is_read_only(self, folder: Path) -> bool:
        """See Files."""
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


class DiskFailingError(StoreError):
    """The disk fails, is read-only or is gone: nothing more is written to it."""


class SyncFailedError(StoreError):
    """What was written before may be lost, and another sync would not tell: nothing more may be called durable."""


def told(error: OSError, what: str, where: str) -> StokerError:
    """Return our error for a failure of the file system."""
    got = error.strerror or str(error)
    if error.errno in FULL:
        return NoSpaceError(what, where=where, got=got, remedy="free some space or add a disk")
    if error.errno == errno.ENOENT:
        return NotFoundError(what, where=where, got=got)
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeniedError(what, where=where, got=got)
    if error.errno in FAILING:
        return DiskFailingError(what, where=where, got=got)
    return StoreError(what, where=where, got=got)


@contextmanager
def telling(what: str, where: str) -> Iterator[None]:
    """Turn the file system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise told(error, what, where) from error
