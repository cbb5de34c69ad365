"""`file:///path`: a folder, read and written through the page cache.

`?fsync=full` (default) makes a finished put survive power loss: the file and its folder are synced. `data` syncs
only the file's bytes, `none` leaves it to the kernel. `?io=` chooses how the kernel is asked: `auto` (default) takes
what is best here, `io_uring`, `threads` or `plain` what they name.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import NotFoundError, StokerError, UsageError
from stoker.kernels.mapping import MappingWatch
from stoker.kernels.reading import open_read_engine
from stoker.kernels.syscalls import RAMFS_MAGIC, TMPFS_MAGIC, file_system_magic
from stoker.storage.api import Buffer, Capabilities, ObjectInfo, Reader
from stoker.storage.backends import page_cache
from stoker.storage.backends.batch_files import FileBatchReader
from stoker.storage.backends.beneath import Root
from stoker.storage.backends.io_option import IO
from stoker.storage.backends.listing import file_version, list_files, object_info, sweep_folder
from stoker.storage.backends.local_writer import LocalWriter, LocalWriting
from stoker.storage.backends.posix_errors import store_error, told
from stoker.storage.base import (
    BaseReader,
    BaseStore,
    byte_view,
    check_object_key,
    check_prefix,
    range_length,
    short_read,
)
from stoker.storage.batch import BatchReader
from stoker.storage.url import StoreURL, UrlOption

FSYNC: Final = UrlOption(
    "fsync", "text", "what a finished put has made durable", default="full", choices=("full", "data", "none")
)
# A FIFO must not block the open; for regular files the flag means nothing.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK
_NOT_THERE: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class FileReader(BaseReader):
    """A range of an open file."""

    def __init__(self, file: int, span: range, status: os.stat_result, where: str) -> None:
        self._file = file
        self._span = span
        self._position = span.start
        self._end = span.stop
        self._where = where
        self.range_bytes = len(span)
        self.object_bytes = status.st_size
        self._status = status

    @property
    def version(self) -> str:
        """Return the file's version."""
        return file_version(self._status)

    def cached_bytes(self) -> int | None:
        """Return how many bytes of the range the page cache holds now, None when that cannot be told."""
        with told(self._where, reading=True):
            return page_cache.cached_bytes(self._file, self._span.start, self.range_bytes)

    def read_into(self, into: memoryview) -> None:
        """Fill `into` with the next bytes of the range."""
        view = byte_view(into)
        if view.nbytes > self._end - self._position:
            raise short_read(self._where, wanted_bytes=view.nbytes, got_bytes=self._end - self._position)
        try:
            self._fill(view)
        except OSError as error:
            raise store_error(error, self._where, reading=True) from error

    def _fill(self, view: memoryview) -> None:
        wanted_bytes = view.nbytes
        while view.nbytes:
            got_bytes = os.preadv(self._file, [view], self._position)
            if got_bytes == 0:
                raise short_read(self._where, wanted_bytes=wanted_bytes, got_bytes=wanted_bytes - view.nbytes)
            self._position += got_bytes
            view = view[got_bytes:]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class PosixStore(BaseStore):
    """The files below one folder. Symbolic links below it are not followed."""

    _read_flags = 0

    def __init__(self, parsed: StoreURL, root: Root, capabilities: Capabilities, writing: LocalWriting) -> None:
        self._url = parsed.redacted
        self._location = parsed.location
        self._path = parsed.path
        self._root = root
        self._capabilities = capabilities
        self._io = writing.io
        self._writer = LocalWriter(root, parsed.location, writing)

    @property
    def url(self) -> str:
        """Return the redacted URL."""
        return self._url

    @property
    def root(self) -> str:
        """Return the local folder."""
        return self._path

    @property
    def capabilities(self) -> Capabilities:
        """Return the facts about this store."""
        return self._capabilities

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading `length_bytes` from `offset_bytes`."""
        where = self._where(key)
        file = -1
        try:
            file = self._root.open(key, _READ | self._read_flags)
            status = _regular(file, where)
            length = range_length(status.st_size, offset_bytes, length_bytes, where=where)
            return self._reader(file, range(offset_bytes, offset_bytes + length), status, where)
        except BaseException as error:
            if file >= 0:
                os.close(file)
            if isinstance(error, OSError):
                raise store_error(error, where, reading=True) from error
            raise

    def _reader(self, file: int, span: range, status: os.stat_result, where: str) -> Reader:
        # A part of a file must not make the kernel read ahead what nobody asked for.
        advice = os.POSIX_FADV_SEQUENTIAL if len(span) == status.st_size else os.POSIX_FADV_RANDOM
        os.posix_fadvise(file, 0, 0, advice)
        return FileReader(file, span, status, where)

    def batch_reader(self, *, residency: bool = True) -> BatchReader | None:
        """Return a reader of many files at once for one thread, None where the kernel cannot open beneath a folder.

        Raises UnavailableError for an engine that `?io=` names and that is not there.
        """
        if not self._root.opens_whole_paths:
            return None
        return FileBatchReader(
            open_read_engine(self._io),
            self._root,
            self._location,
            flags=self._read_flags,
            block_bytes=self._capabilities.alignment_bytes if self._read_flags & os.O_DIRECT else 1,
            residency=residency and not self._read_flags & os.O_DIRECT,
        )

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store `data` under `key` whole or not at all."""
        return self._writer.put(key, data, if_absent=if_absent)

    def put_parts(self, key: str, parts: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        """Store the concatenation of `parts`, written as they come."""
        return self._writer.put_parts(key, parts, if_absent=if_absent)

    def put_many(
        self, items: Sequence[tuple[str, Buffer]], *, if_absent: bool = False
    ) -> "list[ObjectInfo | StokerError]":
        """Store many objects; what came of each stands in its place."""
        return self._writer.put_many(items, if_absent=if_absent)

    def stat(self, key: str) -> ObjectInfo:
        """Return the object's facts."""
        where = self._where(key)
        with told(where, reading=True), self._root.opened(key, os.O_PATH) as file:
            status = _regular(file, where)
        return object_info(key, status)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order, one folder in memory at a time."""
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with told(f"{self._location}/{prefix}", reading=True):
            yield from list_files(self._root, prefix)

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is not an error."""
        where = self._where(key)
        parent, _, name = key.rpartition("/")
        with told(where, reading=False), suppress(*_NOT_THERE), self._root.opened_folder(parent) as folder:
            os.unlink(name, dir_fd=folder)
            if self._synced:
                os.fsync(folder)

    def rename(self, source: str, target: str) -> None:
        """Make `source` appear as `target` in one step, replacing what was there."""
        self._where(target)
        self.stat(source)
        (before, _, old), (after, _, new) = source.rpartition("/"), target.rpartition("/")
        with (
            told(self._where(source), reading=False),
            self._root.opened_folder(before) as origin,
            self._root.opened_folder(after, make=True, sync=self._synced) as goal,
        ):
            os.rename(old, new, src_dir_fd=origin, dst_dir_fd=goal)
            if self._synced:
                os.fsync(goal)
                os.fsync(origin)

    def sweep(self, prefix: str = "") -> int:
        """Remove the unfinished remains of puts, and the empty folders, below the folder `prefix`."""
        check_prefix(prefix)
        with told(f"{self._location}/{prefix}", reading=False):
            return sweep_folder(self._root, prefix.rstrip("/"))

    def cached_bytes(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> int | None:
        """Return how many bytes of the range are in the page cache, None when that cannot be told."""
        where = self._where(key)
        with told(where, reading=True), self._root.opened(key, _READ) as file:
            length = range_length(_regular(file, where).st_size, offset_bytes, length_bytes, where=where)
            return page_cache.cached_bytes(file, offset_bytes, length)

    def map_cached(
        self, key: str, offset_bytes: int, length_bytes: int, watch: MappingWatch, tag: int
    ) -> tuple[NDArray[np.uint8], int] | None:
        """Lend a range that lies in the page cache; None where it does not, and for reads that go past it."""
        if self._read_flags & os.O_DIRECT:
            return None
        where = self._where(key)
        with told(where, reading=True), self._root.opened(key, _READ) as file:
            size_bytes = _regular(file, where).st_size
            if page_cache.cached_bytes(file, offset_bytes, length_bytes) != length_bytes:
                return None
            mapped = watch.map_file(file, offset_bytes, length_bytes, tag)
        return None if mapped is None else (mapped, size_bytes)

    def unwritten_bytes(self, key: str) -> int | None:
        """Return how many bytes lie in the page cache and not on the device yet, None when that cannot be told."""
        where = self._where(key)
        with told(where, reading=True), self._root.opened(key, _READ) as file:
            _regular(file, where)
            return page_cache.unwritten_bytes(file)

    def sync(self, key: str) -> None:
        """Sync the file and its folder, whatever `?fsync=` says of puts."""
        where = self._where(key)
        with told(where, reading=False), self._root.opened(key, _READ) as file:
            _regular(file, where)
            os.fsync(file)
        with told(where, reading=False), self._root.opened_folder(key.rpartition("/")[0]) as folder:
            os.fsync(folder)

    def evict(self, key: str) -> None:
        """Write the object's dirty pages out and drop its clean ones from this host's page cache."""
        where = self._where(key)
        with told(where, reading=True), self._root.opened(key, _READ) as file:
            _regular(file, where)
            page_cache.evict(file)

    def close(self) -> None:
        """Close the root folder and release the engines."""
        self._writer.close()
        self._root.close()

    @property
    def _synced(self) -> bool:
        return self._writer.synced

    def _where(self, key: str) -> str:
        """Return how messages name the object. Raises UsageError for a key no object may carry."""
        return f"{self._location}/{check_object_key(key)}"


def _regular(file: int, where: str) -> os.stat_result:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise NotFoundError("no such object", where=where, expected="a regular file", got=_kind(status.st_mode))
    return status


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a device, pipe or socket"


def open_root(parsed: StoreURL) -> Root:
    """Open the root folder, made first when the URL says so.

    Raises UsageError for a URL that names a host, NotFoundError for a missing folder, DeniedError.
    """
    if parsed.host not in ("", "localhost") or not parsed.path:
        raise UsageError(
            "local URL needs an absolute path",
            where=parsed.redacted,
            expected=f"{parsed.scheme}:///absolute/path",
            remedy="write three slashes, then the path",
        )
    path = Path(parsed.path)
    with told(parsed.location, reading=True):
        try:
            if parsed.create:
                path.mkdir(parents=True, exist_ok=True)
            return Root(path)
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            got = "" if isinstance(error, FileNotFoundError) else "a file in its place"
            raise NotFoundError(
                "no such folder", where=parsed.location, got=got, remedy="create it, or check the path and the mount"
            ) from error


def lies_in_memory(root: Root) -> bool:
    """Tell whether a folder's file system keeps its files in memory alone."""
    return file_system_magic(root.folder) in (TMPFS_MAGIC, RAMFS_MAGIC)


def _buffered_capabilities(root: Root, fsync: str, notes: tuple[str, ...]) -> Capabilities:
    in_memory = lies_in_memory(root)
    return Capabilities(
        io_mode="buffered",
        durable=fsync == "full" and not in_memory,
        in_flight=16,
        cache_evictable=not in_memory,
        notes=notes,
    )


def open_file(parsed: StoreURL) -> PosixStore:
    """Open a `file://` URL. Raises NotFoundError when the folder is missing and is not to be created."""
    settings = parsed.settings((FSYNC, IO))
    root = open_root(parsed)
    try:
        return buffered_store(parsed, root, LocalWriting(settings["fsync"], settings["io"]))
    except BaseException:
        root.close()
        raise


def buffered_store(parsed: StoreURL, root: Root, writing: LocalWriting, notes: tuple[str, ...] = ()) -> PosixStore:
    """Return a store that goes through the page cache; it closes `root`."""
    return PosixStore(parsed, root, _buffered_capabilities(root, writing.fsync, notes), writing)
