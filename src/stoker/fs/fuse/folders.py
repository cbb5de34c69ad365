"""Reading directories. The kernel asks for entries by a number: it is how many came before."""

import errno
import threading
from array import array
from typing import Final

from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply, dirent, entry
from stoker.fs.fuse.requests import Head
from stoker.fs.fuse.state import State
from stoker.fs.meta.answers import Listed, Listing
from stoker.fs.meta.calls import Caller, Lookup, ReadDir
from stoker.fs.meta.faults import MetaError, Refused

_ENTRIES_AT_ONCE: Final = 256
_DOTS: Final = (b".", b"..")
_DIRECTORY: Final = 4


class Passed:
    """The names that were told, in their order, closely packed: behind each of them a listing can go on."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._ends = array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, name: bytes) -> None:
        """Add a name."""
        self._names += name
        self._ends.append(len(self._names))

    def __getitem__(self, index: int) -> bytes:
        start = self._ends[index - 1] if index else 0
        return bytes(self._names[start : self._ends[index]])


class OpenDirectory:
    """A directory that is being read: what comes next, fetched ahead, and the names that were told.

    Nothing is skipped or told twice whatever is made or removed meanwhile: to go on is to ask for what lies behind a
    name. Going back to the beginning reads it anew.
    """

    def __init__(self, ino: int, caller: Caller) -> None:
        self.ino = ino
        self.mutex = threading.Lock()
        self._caller = caller
        self._passed = Passed()
        self._page: tuple[Listed, ...] = ()
        self._page_start = 0
        self._more = True
        self._plus = False

    def rewind(self) -> None:
        """Begin anew."""
        self._passed = Passed()
        self._page, self._page_start, self._more = (), 0, True

    def entry(self, state: State, index: int, *, plus: bool) -> Listed | None:
        """Return the entry behind `index` others, None at the end. Raises Refused (EINVAL) for a place never told."""
        place = index - self._page_start
        if not 0 <= place < len(self._page) or (plus and not self._plus):
            if not self._fetch(state, index, plus=plus):
                return None
            place = 0
        one = self._page[place]
        if index == len(self._passed):
            self._passed.append(one.name)
        return one

    def _fetch(self, state: State, index: int, *, plus: bool) -> bool:
        if index > len(self._passed):
            raise Refused(errno.EINVAL)
        at_end = index == self._page_start + len(self._page) and not self._more
        if at_end and index:
            return False
        after = self._passed[index - 1] if index else b""
        listing = self._listing(state, after, plus=plus)
        self._page, self._page_start = listing.entries, index
        self._more, self._plus = listing.more, plus
        return bool(self._page)

    def _listing(self, state: State, after: bytes, *, plus: bool) -> Listing:
        try:
            return state.client.ask(ReadDir(self.ino, after, _ENTRIES_AT_ONCE, plus), caller=self._caller)
        except MetaError as error:
            if error.errno == errno.ENOENT:  # it was removed while open: it has nothing in it
                return Listing((), more=False)
            if plus and error.errno == errno.EACCES:  # it may be read but not searched
                return state.client.ask(ReadDir(self.ino, after, _ENTRIES_AT_ONCE), caller=self._caller)
            raise


def opendir(state: State, head: Head) -> Reply:
    """Open a directory to read it. The metadata need not hear of it: permissions are asked for with the entries."""
    number = state.handles.add(OpenDirectory(head.node, state.callers.of(head)))
    return Reply(p.OPEN_OUT.pack(number, 0, 0), undo=lambda: _close(state, number))


def releasedir(state: State, _head: Head, number: int, _release_flags: int, _owner: int) -> Reply:
    """Close a directory."""
    _close(state, number)
    return EMPTY


def _close(state: State, number: int) -> None:
    state.handles.pop(number, OpenDirectory)


def fsyncdir(state: State, _head: Head, number: int) -> Reply:
    """Return when the names survive a power failure: those of files that were made by opening may not yet."""
    state.handles.get(number, OpenDirectory)
    if state.client.holds is not None:
        state.client.holds.tell()
    state.client.metadata.make_durable()
    return EMPTY


def readdir(state: State, head: Head, number: int, offset: int, size: int) -> Reply:
    """Tell names."""
    return _read(state, head, number, offset, size, plus=False)


def readdirplus(state: State, head: Head, number: int, offset: int, size: int) -> Reply:
    """Tell names with the attributes of what they stand for."""
    return _read(state, head, number, offset, size, plus=True)


def _read(state: State, head: Head, number: int, offset: int, size: int, *, plus: bool) -> Reply:
    folder = state.handles.get(number, OpenDirectory)
    if folder.ino != head.node:
        raise Refused(errno.EBADF)
    parts: list[bytes] = []
    told: list[tuple[int, int]] = []
    left = min(size, p.WRITE_BYTES_MAX)
    with folder.mutex:
        if not offset:
            folder.rewind()
        while (packed := _packed(state, folder, offset, plus=plus)) is not None and len(packed[0]) <= left:
            parts.append(packed[0])
            told += [packed[1]] if packed[1] else []
            left -= len(packed[0])
            offset += 1
        if not parts and packed is not None:
            raise Refused(errno.EINVAL)  # not even one fits
    for ino, version in told:
        state.inodes.remember(ino, version)
    return Reply(b"".join(parts), undo=lambda: _unsaid(state, told))


def _unsaid(state: State, told: list[tuple[int, int]]) -> None:
    for ino, _ in told:
        state.inodes.forget(ino, 1)


def _packed(
    state: State, folder: OpenDirectory, offset: int, *, plus: bool
) -> tuple[bytes, tuple[int, int] | None] | None:
    """Return the entry at `offset` as bytes, and the inode that the kernel learns of with it and its data's version."""
    if offset < len(_DOTS):
        ino = folder.ino if not offset else _above(state, folder.ino)
        packed = dirent(ino, offset + 1, _DOTS[offset], _DIRECTORY)
        return (bytes(p.ENTRY_OUT.size + p.ATTR.size) + packed if plus else packed), None
    one = folder.entry(state, offset - len(_DOTS), plus=plus)
    if one is None:
        return None
    packed = dirent(one.ino, offset + 1, one.name, one.kind)
    if not plus:
        return packed, None
    if one.attr is None:
        return bytes(p.ENTRY_OUT.size + p.ATTR.size) + packed, None
    return entry(one.ino, one.attr, state.entry_ttl, state.attr_ttl) + packed, (one.ino, one.attr.version)


def _above(state: State, ino: int) -> int:
    """Return the directory above, for `..`; itself when it was removed."""
    try:
        return state.client.ask(Lookup(ino, b"..")).ino
    except MetaError:
        return ino
