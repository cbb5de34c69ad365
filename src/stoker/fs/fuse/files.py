"""Requests about the bytes of files."""

import errno
import os
from typing import Final, NamedTuple

from stoker.fs.client.openfile import OpenFile
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply, entry, inval_inode
from stoker.fs.fuse.names import open_access
from stoker.fs.fuse.requests import Head
from stoker.fs.fuse.state import SUPERUSER, State
from stoker.fs.meta.calls import CopyRange, Create, Fallocate, GetAttr
from stoker.fs.meta.faults import Refused

_PARTS_MAX: Final = 512
"""Of one answer: the kernel takes 1024 buffers at once at most."""
_COPY_BYTES_MAX: Final = 1 << 31


class Opened:
    """A file that a program has open: `append` writes each piece at the end, wherever that is by then."""

    __slots__ = ("append", "file", "ino")

    def __init__(self, ino: int, file: OpenFile, *, append: bool) -> None:
        self.ino = ino
        self.file = file
        self.append = append


def open_(state: State, head: Head, flags: int) -> Reply:
    """Open a file. What another client has changed since is seen from here on."""
    caller = SUPERUSER if flags & p.FMODE_EXEC else state.callers.of(head)
    file = state.client.open(head.node, open_access(flags), truncate=bool(flags & os.O_TRUNC), caller=caller)
    if not state.inodes.told(head.node, file.version):
        state.notify(inval_inode(head.node, -1, 0))  # the kernel may believe a size that is no longer true
    number, answer = _opened(state, head.node, file, flags, file.version)
    return Reply(answer, undo=lambda: _close(state, number, 0))


def create(state: State, head: Head, flags: int, mode: int, umask: int, name: bytes) -> Reply:
    """Make a file and open it; one that is there is opened, unless it must not be."""
    exclusive = bool(flags & os.O_EXCL)
    request = Create(head.node, name, mode & 0o7777, umask, exclusive, open_access(flags))
    caller = state.callers.of(head)
    found, file = state.client.create(request, caller=caller)
    ino, attr = found.ino, found.attr
    if flags & os.O_TRUNC and not found.made and attr.size_bytes:
        file.close()
        file = state.client.open(ino, open_access(flags), truncate=True, caller=caller)
        attr = state.client.ask(GetAttr(ino)).attr
    state.inodes.remember(ino, attr.version)
    number, answer = _opened(state, ino, file, flags, attr.version)

    def undo() -> None:
        state.inodes.forget(ino, 1)
        _close(state, number, 0)

    return Reply(entry(ino, attr, state.entry_ttl, state.attr_ttl), answer, undo=undo)


def _opened(state: State, ino: int, file: OpenFile, flags: int, version: int) -> tuple[int, bytes]:
    """Keep an open file; return its number and how the kernel is to treat it.

    Bytes that are appended land where the metadata says, which the kernel's cache would not know: it is passed by.
    """
    append = bool(flags & os.O_APPEND)
    number = state.handles.add(Opened(ino, file, append=append))
    same = state.inodes.opened(ino, version)
    direct = append or state.options.strict
    how = (p.FOPEN_DIRECT_IO if direct else 0) | (p.FOPEN_KEEP_CACHE if same else 0)
    return number, p.OPEN_OUT.pack(number, how, 0)


def opened(state: State, head: Head, number: int) -> Opened:
    """Return an open file of the inode that a request is about. Raises Refused (EBADF) when it is none."""
    handle = state.handles.get(number, Opened)
    if handle.ino != head.node:
        raise Refused(errno.EBADF)
    return handle


def release(state: State, head: Head, number: int, release_flags: int, owner: int) -> Reply:
    """Close a file; a lock of flock goes with it."""
    opened(state, head, number)
    _close(state, number, owner if release_flags & p.RELEASE_FLOCK_UNLOCK else 0)
    state.locks.wake()
    return EMPTY


def _close(state: State, number: int, owner: int) -> None:
    state.handles.pop(number, Opened).file.close(owner)


def read(state: State, head: Head, number: int, offset: int, size: int) -> Reply:
    """Tell bytes."""
    handle = opened(state, head, number)
    parts = handle.file.read_parts(offset, min(size, p.WRITE_BYTES_MAX))
    return Reply(*parts) if len(parts) <= _PARTS_MAX else Reply(b"".join(parts))


def write(state: State, head: Head, number: int, offset: int, size: int, write_flags: int, data: memoryview) -> Reply:
    """Write bytes; those that come from pages of a map know their place, whoever's file they are written through."""
    handle = opened(state, head, number)
    if size > len(data):
        raise Refused(errno.EINVAL)
    append = handle.append and not write_flags & p.WRITE_CACHE
    handle.file.write(offset, data[:size], append=append)
    return Reply(p.WRITE_OUT.pack(size, 0))


def flush(state: State, head: Head, number: int, owner: int) -> Reply:
    """A program closes one of its descriptors: its locks of fcntl go, and it hears of what could not be written."""
    handle = opened(state, head, number)
    try:
        if handle.file.access & 2:
            handle.file.flush()
    finally:
        state.locks.drop_ranges(handle.ino, owner)
    return EMPTY


def fsync(state: State, head: Head, number: int) -> Reply:
    """Return when what was written survives a power failure."""
    opened(state, head, number).file.fsync()
    return EMPTY


def fallocate(state: State, head: Head, number: int, offset: int, length: int, mode: int) -> Reply:
    """Lengthen a file or make a hole in it."""
    opened(state, head, number)
    state.client.ask(Fallocate(head.node, mode, offset, length), caller=state.callers.of(head))
    return EMPTY


def lseek(state: State, head: Head, number: int, offset: int, whence: int) -> Reply:
    """Tell where data or a hole begins."""
    return Reply(p.LSEEK_OUT.pack(opened(state, head, number).file.seek(offset, whence)))


class Copy(NamedTuple):
    """The fields of COPY_FILE_RANGE; the source's inode stands in the header."""

    source: int
    source_offset: int
    target_node: int
    target: int
    target_offset: int
    length: int


def copy_range(state: State, head: Head, *fields: int) -> Reply:
    """Show bytes of one file in another, by reference."""
    return Reply(p.WRITE_OUT.pack(_copied(state, head, Copy(*fields)), 0))


def copy_range_64(state: State, head: Head, *fields: int) -> Reply:
    """Do the same, and answer in a wider field."""
    return Reply(p.LSEEK_OUT.pack(_copied(state, head, Copy(*fields))))


def _copied(state: State, head: Head, copy: Copy) -> int:
    opened(state, head, copy.source)
    if state.handles.get(copy.target, Opened).ino != copy.target_node:
        raise Refused(errno.EBADF)
    length = min(copy.length, _COPY_BYTES_MAX)
    request = CopyRange(head.node, copy.source_offset, copy.target_node, copy.target_offset, length)
    return state.client.ask(request, caller=state.callers.of(head)).value
