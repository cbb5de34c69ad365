"""What stands in the values: attributes, entries, sessions, opens, slices' counts. Fixed fields, big-endian.

Attributes open with the version of their form, so that a newer form can be told from a damaged one.
"""

import stat
import struct
from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.fs.meta.slices import Slice

NAME_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 4096
SYMLINK_BYTES_MAX: Final = 4095
XATTR_BYTES_MAX: Final = 65536
XATTR_LIST_BYTES_MAX: Final = 65536
LINKS_MAX: Final = 2**31 - 1
FILE_BYTES_MAX: Final = 2**58
"""2^32 chunks of 64 MiB: what the index of a chunk can tell."""
TIME_NS_MAX: Final = 2**63 - 1
TIME_NS_MIN: Final = -(2**63)

HAS_XATTR: Final = 1
HAS_ACL: Final = 2
HAS_DEFAULT_ACL: Final = 4
HAS_DATA: Final = 8
NAMES_HELD: Final = 16
"""There is a row that tells which session holds the names of a directory."""

_ATTR_VERSION: Final = 2
_ATTR: Final = struct.Struct(">BIIIIQQQqqqqBIQH")
_ENTRY: Final = struct.Struct(">QB")
_SESSION: Final = struct.Struct(">qqQB")
_HOLD: Final = struct.Struct(">QqB")
_OPEN: Final = struct.Struct(">II")
_COUNT: Final = struct.Struct(">Q")
_WIDE_BYTES: Final = 16
_REFERENCES: Final = struct.Struct(">IIHQ")
_PACKER: Final = struct.Struct(">Q")
_FREED: Final = struct.Struct(">IIHQq")
_TAKEN: Final = struct.Struct(">QQq")


class Attr(msgspec.Struct):
    """The attributes of an inode; times in nanoseconds since 1970.

    A directory's `size_bytes` is the number of its entries and `nlink` 2 and its subdirectories. `parent` is the
    directory that names it, 0 where several names are counted by parent, or none is left. `opens` counts the sessions
    that have it open. `version` grows with each change of data. `storage_class` is that of what will be written: to a
    file itself, or to what is made in a directory.
    """

    mode: int
    uid: int
    gid: int
    nlink: int
    size_bytes: int
    rdev: int
    parent: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    flags: int = 0
    opens: int = 0
    version: int = 0
    storage_class: int = 0

    @property
    def is_directory(self) -> bool:
        """Tell whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Tell whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Tell whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def kind(self) -> int:
        """Return the type, as the four highest bits of the mode."""
        return self.mode >> 12


def pack_attr(attr: Attr) -> bytes:
    """Return attributes as bytes."""
    return _ATTR.pack(
        _ATTR_VERSION, attr.mode, attr.uid, attr.gid, attr.nlink, attr.size_bytes, attr.rdev, attr.parent,
        attr.atime_ns, attr.mtime_ns, attr.ctime_ns, attr.btime_ns, attr.flags, attr.opens, attr.version,
        attr.storage_class,
    )  # fmt: skip


def unpack_attr(data: bytes) -> Attr:
    """Return attributes from bytes. Raises CorruptError for bytes that are none."""
    if len(data) != _ATTR.size or data[0] != _ATTR_VERSION:
        got = f"{len(data)} bytes of version {data[0] if data else 0}"
        raise CorruptError("attributes of an inode are not readable", expected=f"version {_ATTR_VERSION}", got=got)
    return Attr(*_ATTR.unpack(data)[1:])


def _fields(form: struct.Struct, data: bytes, what: str) -> tuple[int, ...]:
    """Return the fields of a row. Raises CorruptError for bytes of another length."""
    if len(data) != form.size:
        raise CorruptError(f"{what} is not readable", expected=f"{form.size} bytes", got=f"{len(data)}")
    return form.unpack(data)


def pack_entry(ino: int, kind: int) -> bytes:
    """Return a directory's entry as bytes."""
    return _ENTRY.pack(ino, kind)


def unpack_entry(data: bytes) -> tuple[int, int]:
    """Return the inode and the kind of an entry."""
    ino, kind = _fields(_ENTRY, data, "an entry of a directory")
    return ino, kind


class Session(msgspec.Struct):
    """A session: when it expires, how long it lives from each sign of life, and whether it is being closed.

    Answers to requests below `received` are no longer kept: such a request must not be done again.
    """

    expires_ns: int
    ttl_ns: int
    received: int = 0
    closing: bool = False


class Hold(msgspec.Struct):
    """Who holds the names of a directory, until when, and whether somebody has asked for them."""

    session: int
    until_ns: int
    asked: bool = False


def pack_hold(hold: Hold) -> bytes:
    """Return a hold as bytes."""
    return _HOLD.pack(hold.session, hold.until_ns, hold.asked)


def unpack_hold(data: bytes) -> Hold:
    """Return a hold from bytes. Raises CorruptError for bytes that are none."""
    session, until_ns, asked = _fields(_HOLD, data, "hold of a directory's names")
    return Hold(session, until_ns, bool(asked))


def pack_session(session: Session) -> bytes:
    """Return a session as bytes."""
    return _SESSION.pack(session.expires_ns, session.ttl_ns, session.received, session.closing)


def unpack_session(data: bytes) -> Session:
    """Return a session from bytes."""
    expires_ns, ttl_ns, received, closing = _fields(_SESSION, data, "a session")
    return Session(expires_ns, ttl_ns, received, bool(closing))


def pack_opens(readers: int, writers: int) -> bytes:
    """Return how often a session has a file open to read and to write."""
    return _OPEN.pack(readers, writers)


def unpack_opens(data: bytes) -> tuple[int, int]:
    """Return how often a session has a file open to read and to write."""
    readers, writers = _fields(_OPEN, data, "how a file is open")
    return readers, writers


def pack_count(count: int) -> bytes:
    """Return a counter as bytes: twice as many for one that outgrows a field, as the sum of sparse files' sizes may."""
    return _COUNT.pack(count) if count < 1 << 64 else count.to_bytes(_WIDE_BYTES, "big")


def unpack_count(data: bytes | None) -> int:
    """Return a counter; 0 where there is none."""
    if data is not None and len(data) == _WIDE_BYTES:
        return int.from_bytes(data, "big")
    return 0 if data is None else int(_fields(_COUNT, data, "a counter")[0])


def pack_references(data: Slice, count: int, packer: int = 0) -> bytes:
    """Return what a slice is, without its id, and how many extents refer to it; of a pack, which session packs it."""
    row = _REFERENCES.pack(data.generation, data.size_bytes, data.storage_class, count)
    return row + _PACKER.pack(packer) if packer else row


def unpack_references(slice_id: int, data: bytes) -> tuple[Slice, int]:
    """Return a slice and how many extents refer to it."""
    *facts, count = _fields(_REFERENCES, data[: _REFERENCES.size], "the references to a slice")
    if len(data) not in (_REFERENCES.size, _REFERENCES.size + _PACKER.size):
        raise CorruptError("the references to a slice are not readable", got=f"{len(data)} bytes")
    return Slice(slice_id, *facts), count


def packer_of(data: bytes) -> int:
    """Return the session that may show further parts of a slice, 0 for one that is no pack, by its references."""
    return int(_PACKER.unpack_from(data, _REFERENCES.size)[0]) if len(data) > _REFERENCES.size else 0


def pack_freed(data: Slice, ino: int, time_ns: int) -> bytes:
    """Return a slice that is no longer referred to, without its id: the inode that freed it, and when."""
    return _FREED.pack(data.generation, data.size_bytes, data.storage_class, ino, time_ns)


def unpack_freed(slice_id: int, data: bytes) -> tuple[Slice, int, int]:
    """Return a freed slice, the inode that freed it, and when."""
    *facts, ino, time_ns = _fields(_FREED, data, "a freed slice")
    return Slice(slice_id, *facts), ino, time_ns


def pack_taken(first: int, session: int, time_ns: int) -> bytes:
    """Return numbers of slices that were taken, without the last: the first, the session that took them, and when."""
    return _TAKEN.pack(first, session, time_ns)


def unpack_taken(data: bytes) -> tuple[int, int, int]:
    """Return the first of numbers that were taken, the session that took them, and when."""
    first, session, time_ns = _fields(_TAKEN, data, "numbers of slices that were taken")
    return first, session, time_ns
