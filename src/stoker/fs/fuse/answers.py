"""Answers to the kernel as bytes."""

import os
from collections.abc import Callable, Sequence

from stoker.fs.fuse import protocol as p
from stoker.fs.meta.records import NAME_BYTES_MAX, Attr
from stoker.fs.store.interface import Bytes

_SECOND_NS = 10**9
_UNSIGNED = 2**64 - 1
_STATX_BASIC_AND_BIRTH = 0xFFF
_BLOCK_BYTES = 512
_GENERATION = 1
"""Of every inode: no number is used twice, so a number and this are one file for ever."""


class Reply:
    """What goes back: buffers one after the other; `undo` is called when the kernel no longer wants them."""

    __slots__ = ("parts", "undo")

    def __init__(self, *parts: Bytes, undo: Callable[[], None] | None = None) -> None:
        self.parts = parts
        self.undo = undo


EMPTY = Reply()


def framed(unique: int, parts: Sequence[Bytes]) -> list[Bytes]:
    """Return an answer with its header."""
    length = p.OUT_HEADER.size + sum(len(part) for part in parts)
    return [p.OUT_HEADER.pack(length, 0, unique), *parts]


def refusal(unique: int, number: int) -> list[Bytes]:
    """Return the answer that tells an errno."""
    return [p.OUT_HEADER.pack(p.OUT_HEADER.size, -number, unique)]


def duration(seconds: float) -> tuple[int, int]:
    """Return a time as whole seconds and nanoseconds."""
    return divmod(round(seconds * _SECOND_NS), _SECOND_NS)


def attributes(ino: int, attr: Attr) -> bytes:
    """Return attributes as the kernel has them. Times before 1970 are negative seconds in an unsigned field."""
    (atime, atime_ns), (mtime, mtime_ns), (ctime, ctime_ns) = (
        divmod(time_ns, _SECOND_NS) for time_ns in (attr.atime_ns, attr.mtime_ns, attr.ctime_ns)
    )
    size, mask = attr.size_bytes, _UNSIGNED
    return p.ATTR.pack(
        ino, size, blocks(attr), atime & mask, mtime & mask, ctime & mask, atime_ns, mtime_ns, ctime_ns,
        attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev & 0xFFFFFFFF, p.PAGE_BYTES, 0,
    )  # fmt: skip


def blocks(attr: Attr) -> int:
    """Return how many blocks of 512 bytes a file would take without holes."""
    return -(-attr.size_bytes // _BLOCK_BYTES) if attr.is_file or attr.is_symlink else 0


def entry(ino: int, attr: Attr, entry_ttl: tuple[int, int], attr_ttl: tuple[int, int]) -> bytes:
    """Return an inode with its attributes, and how long the kernel may believe its name and them."""
    head = p.ENTRY_OUT.pack(ino, _GENERATION, entry_ttl[0], attr_ttl[0], entry_ttl[1], attr_ttl[1])
    return head + attributes(ino, attr)


def attribute_answer(ino: int, attr: Attr, ttl: tuple[int, int]) -> bytes:
    """Return the answer to GETATTR and SETATTR."""
    return p.ATTR_OUT.pack(*ttl, 0) + attributes(ino, attr)


def statx_answer(ino: int, attr: Attr, ttl: tuple[int, int]) -> bytes:
    """Return the answer to STATX: all that GETATTR tells, and the time of birth."""
    times = [
        part
        for time_ns in (attr.atime_ns, attr.btime_ns, attr.ctime_ns, attr.mtime_ns)
        for part in divmod(time_ns, _SECOND_NS)
    ]
    body = p.STATX_BODY.pack(
        _STATX_BASIC_AND_BIRTH, p.PAGE_BYTES, 0, attr.nlink, attr.uid, attr.gid, attr.mode, ino, attr.size_bytes,
        blocks(attr), 0, *times, os.major(attr.rdev), os.minor(attr.rdev), 0, 0,
    )  # fmt: skip
    return p.STATX_OUT.pack(*ttl, 0) + body


def dirent(ino: int, offset: int, name: bytes, kind: int) -> bytes:
    """Return an entry of a directory; `offset` is where the next one is found, `kind` the type as in Listed."""
    length = p.DIRENT.size + len(name)
    return p.DIRENT.pack(ino, offset, len(name), kind) + name + bytes(-length % 8)


def filesystem(used_bytes: int, free_bytes: int, inodes: int) -> bytes:
    """Return the answer to STATFS."""
    free = free_bytes // p.PAGE_BYTES
    total = free + -(-used_bytes // p.PAGE_BYTES)
    more = 2**40
    return p.STATFS_OUT.pack(total, free, free, inodes + more, more, p.PAGE_BYTES, NAME_BYTES_MAX, p.PAGE_BYTES, 0)


def inval_inode(ino: int, offset: int, length: int) -> list[Bytes]:
    """Return the notice to drop what the kernel keeps of an inode: its attributes, and with `offset` >= 0 its pages."""
    body = p.INVAL_INODE.pack(ino, offset, length)
    return [p.OUT_HEADER.pack(p.OUT_HEADER.size + len(body), p.NOTIFY_INVAL_INODE, 0), body]
