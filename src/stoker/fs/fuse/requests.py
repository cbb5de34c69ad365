"""Requests of the kernel as values: what each opcode carries, checked before anybody acts on it.

Whatever the bytes are, a request is either whole or refused: nothing behind its end is read, and no length that it
tells is believed beyond what came.
"""

import errno
import struct
from typing import Any, Final

import msgspec

from stoker.fs.fuse import protocol as p
from stoker.fs.meta.faults import Refused

_NAME_BYTES_MAX: Final = 4096
"""A name has 255 bytes at most, the target of a symbolic link 4095: what is longer the metadata refuses by its rule."""


class Head(msgspec.Struct, frozen=True):
    """Who asks for what: the opcode, the number of the request, the inode, user, group and process."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int


class Form(msgspec.Struct, frozen=True):
    """What follows the header: fixed fields (those nobody uses are passed over), so many names, data or nothing."""

    fields: struct.Struct
    names: int = 0
    data: bool = False


def _form(fields: str = "", names: int = 0, *, data: bool = False) -> Form:
    return Form(struct.Struct("=" + fields), names, data)


_LOCK: Final = _form("QQQQIII4x")
_RELEASE: Final = _form("Q4xIQ")
_READ: Final = _form("QQI20x")
FORMS: Final[dict[int, Form]] = {
    p.LOOKUP: _form(names=1),
    p.FORGET: _form("Q"),
    p.GETATTR: _form("16x"),
    p.SETATTR: _form("I12xQ8xQQ8xII4xI4xII4x"),
    p.READLINK: _form(),
    p.SYMLINK: _form(names=2),
    p.MKNOD: _form("III4x", 1),
    p.MKDIR: _form("II", 1),
    p.UNLINK: _form(names=1),
    p.RMDIR: _form(names=1),
    p.RENAME: _form("Q", 2),
    p.RENAME2: _form("QI4x", 2),
    p.LINK: _form("Q", 1),
    p.OPEN: _form("I4x"),
    p.READ: _READ,
    p.WRITE: _form("QQII16x", data=True),
    p.STATFS: _form(),
    p.RELEASE: _RELEASE,
    p.FSYNC: _form("Q8x"),
    p.SETXATTR: _form("II", 1, data=True),
    p.GETXATTR: _form("I4x", 1),
    p.LISTXATTR: _form("I4x"),
    p.REMOVEXATTR: _form(names=1),
    p.FLUSH: _form("Q8xQ"),
    p.OPENDIR: _form("8x"),
    p.READDIR: _READ,
    p.READDIRPLUS: _READ,
    p.RELEASEDIR: _RELEASE,
    p.FSYNCDIR: _form("Q8x"),
    p.GETLK: _LOCK,
    p.SETLK: _LOCK,
    p.SETLKW: _LOCK,
    p.ACCESS: _form("I4x"),
    p.CREATE: _form("III4x", 1),
    p.INTERRUPT: _form("Q"),
    p.BATCH_FORGET: _form("I4x", data=True),
    p.FALLOCATE: _form("QQQI4x"),
    p.LSEEK: _form("QQI4x"),
    p.COPY_FILE_RANGE: _form("QQQQQQ8x"),
    p.COPY_FILE_RANGE_64: _form("QQQQQQ8x"),
    p.STATX: _form("24x"),
    p.DESTROY: _form(),
}


def read_head(message: memoryview) -> Head | None:
    """Return the header of a request, None for bytes that are not one whole request."""
    if len(message) < p.IN_HEADER.size:
        return None
    length, opcode, unique, node, uid, gid, pid, _, _ = p.IN_HEADER.unpack_from(message)
    return Head(opcode, unique, node, uid, gid, pid) if length == len(message) else None


def read_body(form: Form, message: memoryview) -> tuple[Any, ...]:
    """Return a request's fields, then its names as bytes, then its data as a view of the message.

    Raises Refused (EINVAL) for one that is cut short, or whose names have no end.
    """
    place = p.IN_HEADER.size
    if len(message) - place < form.fields.size:
        raise Refused(errno.EINVAL)
    fields: tuple[Any, ...] = form.fields.unpack_from(message, place)
    place += form.fields.size
    for _ in range(form.names):
        name, end, _ = bytes(message[place : place + _NAME_BYTES_MAX + 1]).partition(b"\0")
        if not end:
            raise Refused(errno.ENAMETOOLONG if len(name) > _NAME_BYTES_MAX else errno.EINVAL)
        fields += (name,)
        place += len(name) + 1
    return (*fields, message[place:]) if form.data else fields
