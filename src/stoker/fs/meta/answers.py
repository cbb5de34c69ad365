"""Answers as values: what a client is told."""

from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.fs.meta.locking import Held
from stoker.fs.meta.records import Attr
from stoker.fs.meta.slices import Extent, Slice
from stoker.fs.meta.storage_class import StorageClass


class Done(msgspec.Struct, frozen=True, tag=True):
    """It is done. `more` tells that a bounded piece of upkeep left some."""

    more: bool = False


class Entry(msgspec.Struct, frozen=True, tag=True):
    """An inode and its attributes; `made` tells that this request made it."""

    ino: int
    attr: Attr
    made: bool = False


class Number(msgspec.Struct, frozen=True, tag=True):
    """A number: of a session, a token, the first of some slices, or the offset that was written at."""

    value: int


class Content(msgspec.Struct, frozen=True, tag=True):
    """A target, or the value of an extended attribute."""

    data: bytes


class Names(msgspec.Struct, frozen=True, tag=True):
    """Names of extended attributes."""

    names: tuple[bytes, ...]


class Listed(msgspec.Struct, frozen=True):
    """An entry of a directory: `kind` is the type as the four highest bits of a mode."""

    name: bytes
    ino: int
    kind: int
    attr: Attr | None = None


class Listing(msgspec.Struct, frozen=True, tag=True):
    """Entries of a directory; `more` tells that there are others behind."""

    entries: tuple[Listed, ...]
    more: bool


class Shown(msgspec.Struct, frozen=True):
    """An extent at a file's offset."""

    offset_bytes: int
    extent: Extent


class Extents(msgspec.Struct, frozen=True, tag=True):
    """What shows in a range, in order; between lie zeros. `size_bytes` and `version` are the file's."""

    shown: tuple[Shown, ...]
    size_bytes: int
    version: int = 0


class Peeked(msgspec.Struct, frozen=True, tag=True):
    """An inode, its attributes and, of a regular file, what shows in it from its beginning."""

    ino: int
    attr: Attr
    shown: tuple[Shown, ...]


class InTheWay(msgspec.Struct, frozen=True, tag=True):
    """The lock that stands in the way, or None."""

    held: Held | None


class Used(msgspec.Struct, frozen=True, tag=True):
    """How much the volume holds: inodes, and the bytes of its files by their sizes, 2^63-1 at most."""

    inodes: int
    bytes: int


class FreedSlice(msgspec.Struct, frozen=True):
    """A slice that nothing refers to: which inode let it go, and when."""

    slice: Slice
    ino: int
    time_ns: int


class FreedSlices(msgspec.Struct, frozen=True, tag=True):
    """Slices that were freed."""

    slices: tuple[FreedSlice, ...]


class Holder(msgspec.Struct, frozen=True):
    """A chunk of an inode that shows parts of a pack: from where in the pack, how many bytes."""

    ino: int
    index: int
    parts: tuple[tuple[int, int], ...]


class SparsePack(msgspec.Struct, frozen=True):
    """A pack of which little shows: how many bytes of it, and where."""

    slice: Slice
    shown_bytes: int
    holders: tuple[Holder, ...]


class SparsePacks(msgspec.Struct, frozen=True, tag=True):
    """Packs of which little shows."""

    packs: tuple[SparsePack, ...]


class Judged(msgspec.Struct, frozen=True, tag=True):
    """What the metadata knows of each slice that it was asked about: one of the words of JudgeSlices."""

    verdicts: tuple[int, ...]


class Classes(msgspec.Struct, frozen=True, tag=True):
    """The storage classes of the volume, by their numbers."""

    classes: tuple[StorageClass, ...]


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """The errno of a request that was refused; `detail` tells of a damaged row, with EIO, or which names are held."""

    errno: int
    detail: str = ""


Answer = (
    Done
    | Entry
    | Number
    | Content
    | Names
    | Listing
    | Extents
    | Peeked
    | InTheWay
    | Used
    | FreedSlices
    | Judged
    | SparsePacks
    | Classes
    | Refusal
)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Answer)


def pack_answer(answer: Answer) -> bytes:
    """Return an answer as bytes."""
    return _encoder.encode(answer)


def unpack_answer(data: bytes) -> Answer:
    """Return an answer from bytes."""
    try:
        answer: Answer = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptError("answer that was kept is not readable", got=str(error)) from error
    return answer
