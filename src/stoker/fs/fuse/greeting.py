"""INIT: what the kernel offers, and what of it is taken."""

import errno

import msgspec

from stoker.fs.fuse import protocol as p
from stoker.fs.meta.faults import Refused

READAHEAD_BYTES = 4 << 20
_BACKGROUND = 64
_CONGESTION = 48


class Greeting(msgspec.Struct, frozen=True):
    """What was agreed on: the protocol's minor version and the flags."""

    minor: int
    flags: int


def greet(message: memoryview) -> tuple[Greeting | None, bytes]:
    """Return what is agreed on, and the answer; None while the kernel must ask again in an older major version.

    Raises Refused (EPROTO) for a kernel that is too old, and for bytes that are no INIT.
    """
    place = p.IN_HEADER.size
    if len(message) < place + p.INIT_IN.size:
        raise Refused(errno.EPROTO)
    major, minor, readahead_bytes, flags = p.INIT_IN.unpack_from(message, place)
    if major > p.MAJOR:
        return None, p.INIT_OUT.pack(p.MAJOR, p.MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    if major < p.MAJOR or minor < p.MINOR_MIN:
        raise Refused(errno.EPROTO)
    place += p.INIT_IN.size
    if flags & p.INIT_EXT and len(message) >= place + p.INIT_FLAGS2.size:
        flags |= p.INIT_FLAGS2.unpack_from(message, place)[0] << 32
    agreed = Greeting(min(minor, p.MINOR), flags & p.WANTED)
    return agreed, p.INIT_OUT.pack(
        p.MAJOR, agreed.minor, min(readahead_bytes, READAHEAD_BYTES), agreed.flags & 0xFFFFFFFF, _BACKGROUND,
        _CONGESTION, p.WRITE_BYTES_MAX, 1, p.PAGES_MAX, 0, agreed.flags >> 32,
    )  # fmt: skip
