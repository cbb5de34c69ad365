"""Opening files below a root, and nowhere else.

The kernel resolves the whole path in one call (openat2) and refuses `..`, absolute paths and every symbolic
link. Where that call is missing, each folder is opened from the one above without following links.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from stoker.kernels.syscalls import open_beneath

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NOT_OFFERED: Final = (errno.ENOSYS, errno.EPERM)


class Root:
    """An open root folder. Every call raises OSError; closing twice is harmless."""

    def __init__(self, path: Path) -> None:
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._whole_path_call = _offers_openat2(self._folder)

    @property
    def folder(self) -> int:
        """Return the descriptor of the root itself."""
        if self._folder < 0:
            raise OSError(errno.EBADF, "the store is closed")
        return self._folder

    @property
    def opens_whole_paths(self) -> bool:
        """Tell whether one call of the kernel opens a path and keeps it below the root."""
        return self._whole_path_call

    def open(self, path: str, flags: int) -> int:
        """Open what exists at the relative `path`; return the descriptor, which the caller closes."""
        if self._whole_path_call:
            return open_beneath(self.folder, os.fsencode(path), flags | os.O_NOFOLLOW)
        parent, _, name = path.rpartition("/")
        with self.opened_folder(parent) as folder:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    @contextmanager
    def opened(self, path: str, flags: int) -> Iterator[int]:
        """Open what exists at the relative `path` for the length of a `with` block."""
        file = self.open(path, flags)
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def opened_folder(self, path: str, *, make: bool = False, sync: bool = False) -> Iterator[int]:
        """Open the folder at `path`, the root when empty, for the length of a `with` block.

        With `make` what is missing is made first; with `sync` the new entries are durable.
        """
        folder = self._make_folder(path, sync=sync) if make else self._open_folder(path)
        try:
            yield folder
        finally:
            os.close(folder)

    def _open_folder(self, path: str) -> int:
        if self._whole_path_call:
            return open_beneath(self.folder, os.fsencode(path or "."), os.O_RDONLY | os.O_DIRECTORY)
        return self._walk(path, create=False, sync=False)

    def _make_folder(self, path: str, *, sync: bool) -> int:
        try:
            return self._open_folder(path)
        except FileNotFoundError:
            return self._walk(path, create=True, sync=sync)

    def _walk(self, path: str, *, create: bool, sync: bool) -> int:
        folder = os.dup(self.folder)
        for part in path.split("/") if path else ():
            try:
                below = _step(folder, part, create=create, sync=sync)
            finally:
                os.close(folder)
            folder = below
        return folder

    def close(self) -> None:
        """Close the root."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _step(folder: int, part: str, *, create: bool, sync: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    except NotADirectoryError as error:
        if _is_link(folder, part):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from error
        raise
    with suppress(FileExistsError):  # somebody else made it at the same time
        os.mkdir(part, dir_fd=folder)
    if sync:
        os.fsync(folder)
    return os.open(part, _FOLDER, dir_fd=folder)


def _is_link(folder: int, part: str) -> bool:
    return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)


def _offers_openat2(folder: int) -> bool:
    try:
        os.close(open_beneath(folder, b".", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        if error.errno in _NOT_OFFERED:  # an old kernel, or a container's filter that refuses unknown calls
            return False
        raise
    return True
