"""An open file: bytes at offsets."""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stoker.fs.client.errors import refusing, stale
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.meta.answers import Shown
from stoker.fs.meta.calls import READ, WRITE, Caller, Close, GetAttr, ReadExtents, Write
from stoker.fs.meta.faults import meta_error
from stoker.fs.meta.records import FILE_BYTES_MAX, Attr
from stoker.fs.store.interface import Bytes, SliceRange

if TYPE_CHECKING:
    from stoker.fs.client.client import Client


class OpenFile:
    """A file that a client has open. All methods may be called from many threads.

    Raises MetaError with the errno, ESTALE once the session that it was opened in is lost.
    """

    def __init__(self, client: "Client", ino: int, access: int, session: int, caller: Caller) -> None:
        self._client = client
        self.ino = ino
        self.access = access
        self.session = session
        self.caller = caller
        self._where = f"inode {ino}"
        self._closed = False

    def _check(self, access: int) -> None:
        if self._closed or not self.access & access:
            raise meta_error(errno.EBADF, "read" if access == READ else "write", self._where)
        if not self._client.session.is_current(self.session):
            raise stale(self._where)

    def attributes(self) -> Attr:
        """Return the file's attributes, with what was written and not committed yet."""
        return self._client.ask(GetAttr(self.ino), caller=self.caller).attr

    # -- reading

    def read(self, offset: int, size: int) -> Bytes:
        """Return `size` bytes from `offset` on, fewer only where the file ends."""
        parts = self.read_parts(offset, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_parts(self, offset: int, size: int) -> list[Bytes]:
        """Return the same bytes in pieces as they lie, so that nothing is copied."""
        self._check(READ)
        with refusing("read", self._where):
            answer = self._client.metadata.run(ReadExtents(self.ino, offset, size), session=self.session)
            end = min(offset + size, answer.size_bytes)
            ranges = [_range(shown) for shown in answer.shown]
            return list(_with_zeros(offset, end, answer.shown, self._client.store.read(ranges) if ranges else []))

    def seek(self, offset: int, whence: int) -> int:
        """Return where the next data (os.SEEK_DATA) or hole (os.SEEK_HOLE) begins, from `offset` on.

        Raises MetaError: ENXIO at or behind the file's end, or where no data follows.
        """
        self._check(READ | WRITE)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise meta_error(errno.EINVAL, "seek", self._where)
        size_bytes, shown = self._client.layout(self.ino, self.session, offset)
        if not 0 <= offset < size_bytes:
            raise meta_error(errno.ENXIO, "seek", self._where)
        place = offset
        for one in shown:
            if whence == os.SEEK_DATA:
                return max(one.offset_bytes, offset)
            if one.offset_bytes > place:
                return place
            place = one.offset_bytes + one.extent.length
        if whence == os.SEEK_DATA:
            raise meta_error(errno.ENXIO, "seek", self._where)
        return min(place, size_bytes)

    # -- writing

    def write(self, offset: int, data: Bytes, *, append: bool = False) -> int:
        """Write `data` at `offset`, or behind the file's last byte with `append`; return where."""
        self._check(WRITE)
        view = memoryview(data).cast("B")
        if offset < 0:
            raise meta_error(errno.EINVAL, "write", self._where)
        if not append and offset + len(view) > FILE_BYTES_MAX:
            raise meta_error(errno.EFBIG, "write", self._where)
        if not len(view):
            return offset
        with refusing("write", self._where):
            slices = tuple(self._client.store_slice(view[a:b]) for a, b in _pieces(0 if append else offset, len(view)))
            self._client.store.make_durable(slices)
            request = Write(self.ino, slices, 0 if append else offset, append)
            return self._client.metadata.run(request, caller=self.caller, session=self.session).value

    def flush(self) -> None:
        """Make what was written visible to others, durably; tell of what could not be."""
        self._check(READ | WRITE)

    def fsync(self) -> None:
        """Return when what was written to the file survives a power failure."""
        self._check(READ | WRITE)

    def close(self, owner: int = 0) -> None:
        """Close the file; `owner`, unless 0, loses its locks. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._client.session.is_current(self.session):
            self._client.metadata.run(Close(self.ino, self.access, owner), session=self.session)


def _range(shown: Shown) -> SliceRange:
    return SliceRange(shown.extent.slice, shown.extent.offset, shown.extent.length)


def _with_zeros(offset: int, end: int, shown: Sequence[Shown], parts: Sequence[Bytes]) -> Iterator[Bytes]:
    place = offset
    for one, part in zip(shown, parts, strict=True):
        if one.offset_bytes > place:
            yield bytes(one.offset_bytes - place)
        yield part
        place = one.offset_bytes + one.extent.length
    if end > place:
        yield bytes(end - place)


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Return the parts of `length` bytes that lie in one cell each of the grid of pieces, for a file's `offset`."""
    start = 0
    while start < length:
        stop = min(length, start + PIECE_BYTES - (offset + start) % PIECE_BYTES)
        yield start, stop
        start = stop
