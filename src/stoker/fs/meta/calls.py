"""Requests and answers as values: what a client asks of the metadata, and what it is told.

A request changes something or is a question. A `Call` says who asks, in which session, and by which number, so that a
request that is repeated is answered as the first time and done once.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

from stoker.fs.meta.answers import (
    Classes,
    Content,
    Done,
    Entry,
    Extents,
    FreedSlices,
    InTheWay,
    Judged,
    Listing,
    Names,
    Number,
    Peeked,
    Used,
)
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass

NOW: Final = "now"
"""A time to be set to the moment of the transaction."""

READ: Final = 1
WRITE: Final = 2
"""How a file is opened: to read, to write, or both (the sum)."""

NOREPLACE: Final = 1
EXCHANGE: Final = 2
"""Flags of Rename, with the numbers of Linux's renameat2."""

KEEP_SIZE: Final = 1
PUNCH_HOLE: Final = 2
ZERO_RANGE: Final = 16
"""Modes of Fallocate, with Linux's numbers."""

XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2

USED: Final = 1
FREED: Final = 2
TAKEN: Final = 3
LOST: Final = 4
"""Verdicts of JudgeSlices: a file shows it; it was freed; its taker may still show it, or is unknown; nobody can."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks: user, group, further groups. User 0 may do everything."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()

    def belongs_to(self, gid: int) -> bool:
        """Tell whether the caller is in a group."""
        return gid == self.gid or gid in self.groups


A = TypeVar("A")


class Request(msgspec.Struct, Generic[A], frozen=True, tag=True):
    """What is asked, with the kind of its answer."""


# -- names


class Create(Request[Entry], frozen=True):
    """Make a regular file, and open it in the caller's session when `access` says how.

    A file that is there already is opened, unless `exclusive`.

    With `ino`, one of TakeInodes, the file gets this number, and `made_ns` as its times; a name that is taken is
    refused, and an inode that is there already was made by the same request: who holds the names of a directory makes
    files first and asks for them later.
    """

    parent: int
    name: bytes
    mode: int
    umask: int = 0
    exclusive: bool = False
    access: int = 0
    ino: int = 0
    made_ns: int = 0


class Mkdir(Request[Entry], frozen=True):
    """Make a directory."""

    parent: int
    name: bytes
    mode: int
    umask: int = 0


class Mknod(Request[Entry], frozen=True):
    """Make a regular file, fifo, socket or device: the type stands in `mode`."""

    parent: int
    name: bytes
    mode: int
    rdev: int = 0
    umask: int = 0


class Symlink(Request[Entry], frozen=True):
    """Make a symbolic link."""

    parent: int
    name: bytes
    target: bytes


class Link(Request[Entry], frozen=True):
    """Give an inode one more name."""

    ino: int
    parent: int
    name: bytes


class Unlink(Request[Done], frozen=True):
    """Take a name from something that is no directory."""

    parent: int
    name: bytes


class Rmdir(Request[Done], frozen=True):
    """Remove an empty directory."""

    parent: int
    name: bytes


class Rename(Request[Done], frozen=True):
    """Move a name; `flags` are NOREPLACE or EXCHANGE."""

    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    flags: int = 0


# -- attributes


class SetAttr(Request[Entry], frozen=True):
    """Change attributes; None leaves one as it is. `opened` allows a new size to who has the file open to write."""

    ino: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    atime_ns: int | str | None = None
    mtime_ns: int | str | None = None
    opened: bool = False


class SetXattr(Request[Done], frozen=True):
    """Set an extended attribute; `flags` are XATTR_CREATE or XATTR_REPLACE."""

    ino: int
    name: bytes
    value: bytes
    flags: int = 0


class RemoveXattr(Request[Done], frozen=True):
    """Remove an extended attribute."""

    ino: int
    name: bytes


class MakeClass(Request[Number], frozen=True):
    """Make a storage class, which never changes: `wanted` under the next number, which is the answer."""

    wanted: StorageClass


class PutMap(Request[Done], frozen=True):
    """Make `data` the cluster map of `epoch`, in place of that of `expected_epoch`; 0 where there is none yet.

    Refused (ESTALE) when another map is there: somebody was faster. The same map once more is done already.
    """

    expected_epoch: int
    epoch: int
    data: bytes


class SetClass(Request[Entry], frozen=True):
    """Give a directory the class of what is made in it from now on, or a file that of what is written from now on."""

    ino: int
    storage_class: int


# -- content


class Open(Request[Entry], frozen=True):
    """Open a file or directory in the caller's session; `access` is READ, WRITE or both; `truncate` empties a file."""

    ino: int
    access: int
    truncate: bool = False


class Close(Request[Done], frozen=True):
    """Close what was opened with the same `access`. `owner`, unless 0, loses its locks on the file."""

    ino: int
    access: int
    owner: int = 0


class TakeSlices(Request[Number], frozen=True):
    """Take `count` numbers for slices; nobody else gets them. Those taken in a session are shown in it, or never."""

    count: int


class Write(Request[Number], frozen=True):
    """Show slices that are stored, one after the other, from `offset_bytes` on, or at the end with `append`.

    `token`, unless 0, is that of a lock: without the lock nothing is written. `written_ns`, unless 0, is when the bytes
    were written, at most now: what the time of change becomes. `parts` as in Put.
    """

    ino: int
    slices: tuple[Slice, ...]
    offset_bytes: int = 0
    append: bool = False
    token: int = 0
    written_ns: int = 0
    parts: tuple[tuple[int, int], ...] = ()


class Put(Request[Entry], frozen=True):
    """Make a regular file of stored slices, or give the one that is there this content, all in one step.

    A file that is there is refused when `exclusive`. Nothing stays open. With `fitting`, slices of another class than
    the file's are refused (EAGAIN): who stored them before he knew the file stores them again.

    `parts` are what the file shows of each slice, as offset and length in it; without them it shows the slices whole. A
    slice that is shown by parts is a pack: the session that showed the first of them may show others of it, in other
    files, as long as any is shown (EAGAIN otherwise: it must be stored anew).
    """

    parent: int
    name: bytes
    mode: int
    slices: tuple[Slice, ...]
    umask: int = 0
    exclusive: bool = False
    fitting: bool = False
    parts: tuple[tuple[int, int], ...] = ()


class Fallocate(Request[Done], frozen=True):
    """Lengthen a file, or make a hole; `mode` is 0, KEEP_SIZE, PUNCH_HOLE + KEEP_SIZE, or ZERO_RANGE (+ KEEP_SIZE)."""

    ino: int
    mode: int
    offset_bytes: int
    length_bytes: int


class CopyRange(Request[Number], frozen=True):
    """Show a range of one file in another, by reference: no byte is copied."""

    source: int
    source_offset_bytes: int
    target: int
    target_offset_bytes: int
    length_bytes: int


class Compact(Request[Done], frozen=True):
    """Show the bytes of a range, within one chunk, in fewer slices: `pieces` are stored slices at offsets of the file.

    Nothing that can be seen changes, nor a hole. Refused (EAGAIN) when the data is no longer of this `version`.
    """

    ino: int
    offset_bytes: int
    length_bytes: int
    version: int
    pieces: tuple[tuple[int, Slice], ...]


# -- locks


class SetLock(Request[Number], frozen=True):
    """Take, change or give back a lock at once or not at all.

    `whole` is a lock of flock; otherwise [start, end) of fcntl. `exclusive` None gives back.
    """

    ino: int
    owner: int
    exclusive: bool | None
    start: int = 0
    end: int = 2**63
    whole: bool = False


# -- sessions and upkeep


class BeginSession(Request[Number], frozen=True):
    """Begin a session that lives `ttl_ns` from each sign of life."""

    ttl_ns: int


class RenewSession(Request[Done], frozen=True):
    """Give a sign of life."""


class EndSession(Request[Done], frozen=True):
    """Close all that a session has open and give its locks back; at most `limit` rows at a time."""

    session: int
    limit: int = 256


class ExpireSessions(Request[Done], frozen=True):
    """End sessions that gave no sign of life in time; at most `limit` rows at a time."""

    limit: int = 256


class Reclaim(Request[Done], frozen=True):
    """Free the chunks of files that are gone; at most `limit` rows at a time."""

    limit: int = 256


class ForgetFreed(Request[Done], frozen=True):
    """Forget slices that were freed, once their bytes are deleted."""

    ids: tuple[int, ...]


class MergeTaken(Request[Number], frozen=True):
    """Join what is known of numbers that were taken in sessions which are over; at most `limit` rows, behind `after`.

    Answers where to go on, 0 at the end.
    """

    after: int = 0
    limit: int = 256


# -- questions


class Question(Request[A], frozen=True):
    """What changes nothing, and is answered from a snapshot."""


class Lookup(Question[Entry], frozen=True):
    """What a name stands for; `.` and `..` too."""

    parent: int
    name: bytes


class GetAttr(Question[Entry], frozen=True):
    """The attributes of an inode."""

    ino: int


class Access(Question[Done], frozen=True):
    """Whether the caller may read (4), write (2), execute or search (1): any sum of these."""

    ino: int
    mask: int


class ReadDir(Question[Listing], frozen=True):
    """Entries of a directory in the order of their names, behind the name `after`; `plus` brings their attributes.

    A name is a cursor that stays right whatever is made or removed meanwhile.
    """

    ino: int
    after: bytes = b""
    limit: int = 1000
    plus: bool = False


class ReadLink(Question[Content], frozen=True):
    """The target of a symbolic link."""

    ino: int


class GetXattr(Question[Content], frozen=True):
    """The value of an extended attribute."""

    ino: int
    name: bytes


class ListXattr(Question[Names], frozen=True):
    """The names of extended attributes that the caller may see."""

    ino: int


class ReadExtents(Question[Extents], frozen=True):
    """What shows in a range of a file, which the caller's session has open."""

    ino: int
    offset_bytes: int
    length_bytes: int


class Peek(Question[Peeked], frozen=True):
    """An inode, or what `name` stands for in the directory `ino`, with what shows in its first `limit_bytes`.

    For who reads a file once: it need not be open, and is not when this is answered.
    """

    ino: int
    name: bytes = b""
    limit_bytes: int = 2**58


class FindLock(Question[InTheWay], frozen=True):
    """Which lock stands in the way of one that would be taken."""

    ino: int
    owner: int
    exclusive: bool
    start: int = 0
    end: int = 2**63
    whole: bool = False


class Usage(Question[Used], frozen=True):
    """How much the volume holds."""


class ListClasses(Question[Classes], frozen=True):
    """All storage classes of the volume."""


class GetMap(Question[Content], frozen=True):
    """The newest cluster map; empty for who knows it already, and where there is none."""

    known_epoch: int = 0


class ListFreed(Question[FreedSlices], frozen=True):
    """Slices that were freed and not yet forgotten, by id, behind `after`."""

    after: int = 0
    limit: int = 1000


class JudgeSlices(Question[Judged], frozen=True):
    """What is known of slices by their numbers: USED, FREED, TAKEN, or LOST.

    LOST are those that nobody shows and nobody can: the session that took them, at least `grace_ns` ago, is over.
    """

    ids: tuple[int, ...]
    grace_ns: int


class Call(msgspec.Struct, frozen=True):
    """A request with who asks. With a `seq` other than 0 its answer is kept, and a repetition gets the same one.

    Answers to all numbers below `received` have come, so they need not be kept.
    """

    request: Request[Any]
    caller: Caller = Caller()
    session: int = 0
    seq: int = 0
    received: int = 0
