"""`direct:///path`: a folder, read and written past the page cache (O_DIRECT).

What is aligned moves straight between the device and the caller's buffer; the rest goes through a bounded pool of
page-aligned buffers. Files keep their exact length. Where the file system has no O_DIRECT, opening fails; with
`?fallback=buffered` the page cache is used instead, and the capabilities say so.
"""

import errno
import os
from dataclasses import dataclass
from typing import Final

from stoker.core.errors import PreflightError, StoreError
from stoker.core.units import MiB
from stoker.kernels.syscalls import direct_alignment
from stoker.storage.api import Capabilities, Reader
from stoker.storage.backends.beneath import Root
from stoker.storage.backends.io_option import IO
from stoker.storage.backends.listing import list_files
from stoker.storage.backends.local_writer import LocalWriting
from stoker.storage.backends.new_file import temporary_name
from stoker.storage.backends.posix import (
    FSYNC,
    FileReader,
    PosixStore,
    buffered_store,
    lies_in_memory,
    open_root,
)
from stoker.storage.backends.posix_errors import told
from stoker.storage.base import short_read
from stoker.storage.buffers import PAGE_BYTES, BufferPool, address_of, aligned_view
from stoker.storage.url import StoreURL, UrlOption

FALLBACK: Final = UrlOption(
    "fallback", "text", "what to use where O_DIRECT is refused", default="none", choices=("none", "buffered")
)
_BOUNCE_BYTES: Final = MiB
_BOUNCE_LIMIT_BYTES: Final = 64 * MiB
_ALIGNMENT_DEFAULT_BYTES: Final = 4096
_UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class _Device:
    """What O_DIRECT asks of memory, offsets and lengths, and where unaligned requests are staged."""

    alignment_bytes: int
    pool: BufferPool

    def aligned_prefix_bytes(self, view: memoryview, position: int) -> int:
        """Return how many bytes from the beginning of `view` can move without a copy."""
        whole_bytes = view.nbytes - view.nbytes % self.alignment_bytes
        if whole_bytes == 0 or position % self.alignment_bytes or address_of(view) % self.alignment_bytes:
            return 0
        return whole_bytes


class DirectReader(FileReader):
    """A range of a file opened with O_DIRECT."""

    def __init__(self, file: int, span: range, status: os.stat_result, where: str, device: _Device) -> None:
        super().__init__(file, span, status, where)
        self._device = device

    def cached_bytes(self) -> int | None:
        """Return 0: these reads go to the device, whatever the page cache holds."""
        return 0

    def _fill(self, view: memoryview) -> None:
        wanted_bytes = view.nbytes
        while view.nbytes:
            straight_bytes = self._device.aligned_prefix_bytes(view, self._position)
            got_bytes = self._straight(view[:straight_bytes]) if straight_bytes else self._bounced(view)
            if got_bytes == 0:
                raise short_read(self._where, wanted_bytes=wanted_bytes, got_bytes=wanted_bytes - view.nbytes)
            self._position += got_bytes
            view = view[got_bytes:]

    def _straight(self, view: memoryview) -> int:
        return os.preadv(self._file, [view], self._position)

    def _bounced(self, view: memoryview) -> int:
        """Read the aligned window around the next bytes, hand out what belongs to `view`, return how many."""
        alignment = self._device.alignment_bytes
        skip = self._position % alignment
        window_bytes = min(_BOUNCE_BYTES, -(-(skip + view.nbytes) // alignment) * alignment)
        with self._device.pool.acquire(window_bytes) as lease:
            read_bytes = os.preadv(self._file, [lease.view], self._position - skip)
            useful_bytes = max(0, min(read_bytes - skip, view.nbytes))
            view[:useful_bytes] = lease.view[skip : skip + useful_bytes]
        return useful_bytes


class DirectStore(PosixStore):
    """The files below one folder, past the page cache."""

    _read_flags = os.O_DIRECT

    def __init__(self, parsed: StoreURL, root: Root, capabilities: Capabilities, writing: LocalWriting) -> None:
        self._device = _Device(capabilities.alignment_bytes, BufferPool(_BOUNCE_LIMIT_BYTES))
        super().__init__(parsed, root, capabilities, writing)

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        """Open `key` for reading `length_bytes` from `offset_bytes`."""
        try:
            return super().open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes)
        except StoreError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EINVAL:
                self.stat(key)  # a folder answers like this too, and is then simply not found
                raise StoreError("O_DIRECT is refused for this file", where=error.where) from error
            raise

    def _reader(self, file: int, span: range, status: os.stat_result, where: str) -> Reader:
        return DirectReader(file, span, status, where, self._device)


def open_direct(parsed: StoreURL) -> PosixStore:
    """Open a `direct://` URL.

    Raises NotFoundError for a missing folder, PreflightError where O_DIRECT is refused and no fallback is asked for.
    """
    settings = parsed.settings((FSYNC, IO, FALLBACK))
    root = open_root(parsed)
    try:
        with told(parsed.location, reading=True):
            refusal = _refusal(root)
        if not refusal:
            return _direct(parsed, root, settings["fsync"], settings["io"])
        if settings["fallback"] == "buffered":
            writing = LocalWriting(settings["fsync"], settings["io"])
            return buffered_store(parsed, root, writing, (f"direct:// fell back to buffered I/O: {refusal}",))
        raise PreflightError(
            "O_DIRECT is refused",
            where=parsed.location,
            got=refusal,
            remedy="use another folder, or add ?fallback=buffered to measure the page cache instead",
        )
    except BaseException:
        root.close()
        raise


def _direct(parsed: StoreURL, root: Root, fsync: str, io: str) -> DirectStore:
    capabilities = Capabilities(
        io_mode="direct",
        alignment_bytes=_alignment(root),
        durable=fsync == "full",
        in_flight=32,
        cache_evictable=True,
    )
    writing = LocalWriting(fsync, io, os.O_DIRECT, capabilities.alignment_bytes)
    return DirectStore(parsed, root, capabilities, writing)


def _refusal(root: Root) -> str:
    """Return why O_DIRECT cannot be used below `root`, an empty text when it can.

    A file system in memory takes the flag on newer kernels, but its pages are the page cache.
    """
    if lies_in_memory(root):
        return "the file system lies in memory, there is no device below it"
    try:
        _probe(root)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return f"the file system says {os.strerror(error.errno)!r}"
    return ""


def _probe(root: Root) -> None:
    """Move one block with O_DIRECT: through a nameless file, else by reading a file that is there already."""
    block = aligned_view(PAGE_BYTES)
    try:
        _probe_by_writing(root, block)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _probe_by_reading(root, block)


def _probe_by_writing(root: Root, block: memoryview) -> None:
    file = _scratch_file(root)
    try:
        os.pwrite(file, block, 0)
        os.preadv(file, [block], 0)
    finally:
        os.close(file)


def _probe_by_reading(root: Root, block: memoryview) -> None:
    first = next(list_files(root, ""), None)
    if first is not None:
        with root.opened(first.key, os.O_RDONLY | os.O_DIRECT) as file:
            os.preadv(file, [block], 0)


def _scratch_file(root: Root) -> int:
    """Open an empty file that vanishes when it is closed."""
    flags = os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=root.folder)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    name = temporary_name()
    file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root.folder)
    os.unlink(name, dir_fd=root.folder)
    return file


def _alignment(root: Root) -> int:
    """Return what the device asks for, at least 512 bytes; 4096 when the kernel does not tell."""
    try:
        file = _scratch_file(root)
        try:
            return max(direct_alignment(file) or _ALIGNMENT_DEFAULT_BYTES, 512)
        finally:
            os.close(file)
    except OSError:  # a read-only folder, or a kernel before 6.1: the default is right for all known devices
        return _ALIGNMENT_DEFAULT_BYTES
