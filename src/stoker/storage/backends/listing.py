"""Listing a folder tree in key order, one folder in memory at a time."""

import errno
import os
import stat
from collections.abc import Iterator

from stoker.storage.api import ObjectInfo
from stoker.storage.backends.beneath import Root
from stoker.storage.base import TEMPORARY_SUFFIX


def object_info(key: str, status: os.stat_result) -> ObjectInfo:
    """Return a file's facts; its version is made of size and time of change."""
    return ObjectInfo(key, status.st_size, file_version(status))


def file_version(status: os.stat_result) -> str:
    """Return a text that changes when the file is replaced or written to."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def written_info(key: str, size_bytes: int, mtime_ns: int) -> ObjectInfo:
    """Return the facts of a file that was just written, as `object_info` would."""
    return ObjectInfo(key, size_bytes, f"{size_bytes:x}-{mtime_ns:x}")


def list_files(root: Root, prefix: str) -> Iterator[ObjectInfo]:
    """Yield the regular files whose path begins with `prefix`, in key order.

    Symbolic links are neither listed nor followed; what vanishes while listing is left out. Raises OSError.
    """
    yield from _walk(root, prefix.rpartition("/")[0], prefix)


def _walk(root: Root, folder_path: str, prefix: str) -> Iterator[ObjectInfo]:
    try:
        with root.opened_folder(folder_path) as folder:
            entries = _entries(folder, f"{folder_path}/" if folder_path else "", prefix)
    except (FileNotFoundError, NotADirectoryError):
        return
    for path, info in entries:
        if info is None:
            yield from _walk(root, path.rstrip("/"), prefix)
        else:
            yield info


def _entries(folder: int, base: str, prefix: str) -> list[tuple[str, ObjectInfo | None]]:
    """Return a folder's files, and its sub-folders with a trailing `/` and no facts, sorted.

    The slash makes the order that of whole keys: `a-b` comes before `a/b`, because `-` comes before `/`.
    """
    found: list[tuple[str, ObjectInfo | None]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY_SUFFIX in entry.name:
                continue
            path = base + entry.name
            if entry.is_dir(follow_symlinks=False):
                below = path + "/"
                if below.startswith(prefix) or prefix.startswith(below):
                    found.append((below, None))
            elif path.startswith(prefix):
                info = _facts(entry, path)
                if info is not None:
                    found.append((path, info))
    return sorted(found, key=lambda pair: pair[0])


def sweep_folder(root: Root, path: str) -> int:
    """Remove unfinished files and empty folders below the folder `path`, then it and the folders above while empty.

    The root stays, and symbolic links are left alone. Returns how many were removed. Raises OSError.
    """
    removed = _sweep_below(root, path)
    while path and _remove_if_empty(root, path):
        removed += 1
        path = path.rpartition("/")[0]
    return removed


def _sweep_below(root: Root, path: str) -> int:
    removed = 0
    try:
        with root.opened_folder(path) as folder, os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    below = f"{path}/{entry.name}" if path else entry.name
                    removed += _sweep_below(root, below) + _remove_if_empty(root, below)
                elif TEMPORARY_SUFFIX in entry.name and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    removed += 1
    except (FileNotFoundError, NotADirectoryError):
        return removed
    return removed


def _remove_if_empty(root: Root, path: str) -> int:
    parent, _, name = path.rpartition("/")
    with root.opened_folder(parent) as folder:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
                return 0
            raise
    return 1


def _facts(entry: os.DirEntry[str], key: str) -> ObjectInfo | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return object_info(key, status) if stat.S_ISREG(status.st_mode) else None
