"""An open file: a handle on what a client has open."""

import errno
import os
import threading
from typing import Protocol

from stoker.core.errors import StokerError
from stoker.fs.client.buffer import cells
from stoker.fs.client.errors import refusing, stale
from stoker.fs.client.inode import OpenInode
from stoker.fs.client.readahead import Readahead, steps
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Answer
from stoker.fs.meta.calls import READ, WRITE, Call, Caller, Close, GetAttr, Open
from stoker.fs.meta.faults import MetaError, meta_error
from stoker.fs.meta.records import FILE_BYTES_MAX, Attr
from stoker.fs.store.interface import Bytes


class Host(Protocol):
    """What a handle needs of its client."""

    def relieve(self) -> None:
        """Have some bytes shown, so that others may be written. Raises MetaError when none could be."""

    def flush_soon(self, inode: OpenInode) -> None:
        """Have a file's bytes shown in the background."""

    def let_go(self, handle: "OpenFile", inode: OpenInode) -> bool:
        """Note that a handle is closed; tell whether it was the last."""


class OpenFile:
    """A file that a client has open. All methods may be called from many threads.

    What is written is seen by all handles of this client at once, and by others once it is flushed: by `flush`, `fsync`
    or `close`, or after a while. Raises MetaError with the errno: ESTALE once the session it was opened in is lost.
    """

    def __init__(
        self,
        host: Host,
        works: Works,
        inode: OpenInode,
        access: int,
        caller: Caller,
        version: int,
        *,
        light: bool = False,
    ) -> None:
        self._host = host
        self._works = works
        self._inode = inode
        self.access = access
        self.caller = caller
        self._losses = inode.losses
        self._ahead = Readahead(min(works.options.readahead_bytes, works.options.cache_bytes // 4))
        self._mutex = threading.Lock()
        self._closed = False
        self._light = light
        self.version = version  # of the data, as the metadata told it when the file was opened

    @property
    def ino(self) -> int:
        """Return the inode's number."""
        return self._inode.ino

    @property
    def inode(self) -> OpenInode:
        """Return what is open of the file, for all handles of the client."""
        return self._inode

    @property
    def session(self) -> int:
        """Return the session that the file is open in."""
        return self._inode.session

    def harden(self) -> None:
        """Open the file in the session, unless it is: something is asked that needs it, or its name is taken away."""
        with self._mutex:
            if not self._light or self._closed:
                return
            try:
                self._works.ask(Open(self.ino, self.access), session=self.session)
            except MetaError as error:
                if error.errno != errno.ENOENT:
                    raise
                return
            self._light = False
            self._inode.light -= 1

    def _check(self, access: int, verb: str) -> None:
        if self._closed or not self.access & access:
            raise meta_error(errno.EBADF, verb, self._inode.where)
        if not self._works.session.is_alive(self.session):
            raise stale(self._inode.where)

    def attributes(self) -> Attr:
        """Return the file's attributes, with what is written and not shown yet."""
        self._check(READ | WRITE, "stat")
        self._inode.tell()
        generation = self._inode.layout.generation
        return self._inode.right(self._works.ask(GetAttr(self.ino), session=self.session).attr, generation)

    # -- reading

    def read(self, offset: int, size: int) -> Bytes:
        """Return `size` bytes from `offset` on, fewer only where the file ends."""
        parts = self.read_parts(offset, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_parts(self, offset: int, size: int) -> list[Bytes]:
        """Return the same bytes in the pieces in which they lie, so that nothing is copied."""
        self._check(READ, "read")
        if offset < 0 or size < 0:
            raise meta_error(errno.EINVAL, "read", self._inode.where)
        if not size:
            return []
        with refusing("read", self._inode.where):
            parts = self._inode.read(offset, size, passing=self._passing)
            got_bytes = sum(len(part) for part in parts)
            self._works.counters.read_bytes += got_bytes
            if self._works.options.readahead_bytes and got_bytes == size:
                self._read_ahead(offset, size)
        return parts

    def _read_ahead(self, offset: int, size: int) -> None:
        with self._mutex:
            start, stop = self._ahead.step(offset, size)
        for low, high in steps(start, min(stop, self._inode.layout.size_bytes)):
            self._works.pool.submit(self._inode.fetch_ahead, low, high)

    @property
    def _passing(self) -> bool:
        """Tell whether what is read now need not be kept: the file is read in order, and too large to stay whole."""
        return self._ahead.steady and self._inode.layout.size_bytes > self._works.options.cache_bytes // 2

    def seek(self, offset: int, whence: int) -> int:
        """Return where the next data (os.SEEK_DATA) or hole (os.SEEK_HOLE) begins, from `offset` on.

        Raises MetaError: ENXIO at or behind the file's end, or where no data follows.
        """
        self._check(READ | WRITE, "seek")
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise meta_error(errno.EINVAL, "seek", self._inode.where)
        spans, end = self._inode.all_spans(max(offset, 0))
        if not 0 <= offset < end:
            raise meta_error(errno.ENXIO, "seek", self._inode.where)
        place = offset
        for span in spans:
            if whence == os.SEEK_DATA:
                return span.start
            if span.start > place:
                return place
            place = span.stop
        if whence == os.SEEK_DATA:
            raise meta_error(errno.ENXIO, "seek", self._inode.where)
        return place

    # -- writing

    def write(self, offset: int, data: Bytes, *, append: bool = False) -> int:
        """Write `data` at `offset`, or behind the file's last byte with `append`; return where.

        Appended bytes of one call stay together whoever else appends; where they come to lie is only foretold, unless
        the client is strict. Raises MetaError: ENOSPC, EIO when the bounded memory is full of what cannot be stored.
        """
        self._check(WRITE, "write")
        view = memoryview(data).cast("B")
        if offset < 0:
            raise meta_error(errno.EINVAL, "write", self._inode.where)
        if (self._inode.size_bytes if append else offset) + len(view) > FILE_BYTES_MAX:
            raise meta_error(errno.EFBIG, "write", self._inode.where)
        if not len(view):
            return offset
        at = self._append(view) if append else self._write(offset, view)
        self._works.counters.written_bytes += len(view)
        if self._inode.waiting_bytes >= self._works.options.commit_bytes:
            self._host.flush_soon(self._inode)
        return at

    def _write(self, offset: int, view: memoryview) -> int:
        for start, stop in cells(offset, len(view)):
            self._room(stop - start)
            self._inode.write(offset + start, view[start:stop], self.caller)
        if self._works.options.strict:
            self._inode.commit()
        return offset

    def _append(self, view: memoryview) -> int:
        self._room(len(view))
        if self._works.options.strict:
            return self._inode.append_now(view, self.caller)
        return self._inode.append(view, self.caller)

    def _room(self, count: int) -> None:
        while not self._works.budget.try_take(count):
            self._works.counters.relieved += 1
            self._host.relieve()

    def flush(self) -> None:
        """Have what was written shown to others, durably; tell of what could not be."""
        self._check(READ | WRITE, "flush")
        if self.access & WRITE:
            self._inode.commit()
            with refusing("flush", self._inode.where):
                self._inode.keep_changes()
        self._tell()

    def fsync(self) -> None:
        """Return when all that was written to the file survives a power failure, and others see it."""
        self._check(READ | WRITE, "fsync")
        if not self._inode.commit():
            with refusing("fsync", self._inode.where):
                self._inode.tell()
                self._works.metadata.make_durable()
        self._tell()

    def _tell(self) -> None:
        """Raise the error of bytes that were given up since this handle was last told."""
        with self._mutex:
            told, self._losses = self._losses, self._inode.losses
        if told < self._losses:
            raise self._inode.loss()

    def close(self, owner: int = 0) -> None:
        """Flush, and close the file; `owner`, unless 0, loses its locks. Closing twice is harmless.

        The file is closed even when an error tells that bytes were not stored.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        call = Call(Close(self.ino, self.access, owner), self.caller, self.session)
        error: StokerError | None = None
        try:
            self._finish(call)
        except StokerError as failed:
            error = failed
        if self._host.let_go(self, self._inode) and self._inode.drop():
            error = error or self._inode.loss()
        if error is not None:
            raise error
        self._tell()

    def _finish(self, call: Call) -> None:
        """Show what was written and close the file, in one transaction where that goes well."""
        answers: list[Answer] = []
        with refusing("close", self._inode.where):
            try:
                if self.access & WRITE:
                    self._inode.commit([call], answers)
                    self._inode.keep_changes()
                self._inode.tell()
            finally:
                # A refusal tells that the session is over: then it is closed as well.
                if not answers and not self._light:
                    self._closed_in_session(call)

    def _closed_in_session(self, call: Call) -> None:
        """Close the file in the session: at once where a lock goes with it, else with whatever is committed next."""
        if self._works.puts_off and isinstance(call.request, Close) and not call.request.owner:
            self._works.commits.later(call)
        else:
            self._works.metadata.submit([call])
