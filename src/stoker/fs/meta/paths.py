"""From a path to an inode, as the kernel walks one: symbolic links, `..`, trailing slashes, limits."""

import errno
from typing import Final, Protocol, TypeVar

from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import EXCHANGE, NOREPLACE, Caller, Lookup, ReadLink, Request
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import MetaError, Refused
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.listing import readlink
from stoker.fs.meta.naming import lookup
from stoker.fs.meta.records import PATH_BYTES_MAX, Attr
from stoker.fs.meta.service import Metadata

A = TypeVar("A")

SYMLINKS_MAX: Final = 40
DIRECTORY: Final = 4  # the highest four bits of its mode


class Place:
    """Where a path leads: the directory of its last name, that name, and whether a slash follows it."""

    __slots__ = ("name", "parent", "slash")

    def __init__(self, parent: int, name: bytes, *, slash: bool) -> None:
        self.parent = parent
        self.name = name
        self.slash = slash


class Names(Protocol):
    """What a walk asks at each step. All raise Refused."""

    def lookup(self, parent: int, name: bytes) -> Entry:
        """Return what a name stands for."""

    def target(self, ino: int) -> bytes:
        """Return the target of a symbolic link."""

    def entry(self, parent: int, name: bytes) -> tuple[int, int] | None:
        """Return the inode and kind that a name stands for, None when there is none."""

    def searched(self, ino: int) -> object:
        """Return when the caller may look names up in a directory."""


class SnapshotNames:
    """Names as one snapshot has them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.entry = context.entry
        self.searched = context.searched

    def lookup(self, parent: int, name: bytes) -> Entry:
        """Return what a name stands for."""
        found = lookup(self._context, Lookup(parent, name))
        assert isinstance(found, Entry)
        return found

    def target(self, ino: int) -> bytes:
        """Return the target of a symbolic link."""
        return readlink(self._context, ReadLink(ino)).data


class AskedNames:
    """Names asked one by one of metadata that may be elsewhere: others may change them between two steps."""

    def __init__(self, metadata: Metadata, caller: Caller) -> None:
        self._metadata = metadata
        self._caller = caller

    def _ask(self, request: Request[A]) -> A:
        try:
            return self._metadata.run(request, caller=self._caller)
        except MetaError as error:
            raise Refused(error.errno) from error

    def lookup(self, parent: int, name: bytes) -> Entry:
        """Return what a name stands for."""
        return self._ask(Lookup(parent, name))

    def target(self, ino: int) -> bytes:
        """Return the target of a symbolic link."""
        return self._ask(ReadLink(ino)).data

    def entry(self, parent: int, name: bytes) -> tuple[int, int] | None:
        """Return the inode and kind that a name stands for, None when there is none."""
        try:
            found = self._ask(Lookup(parent, name))
        except Refused as refused:
            if refused.errno == errno.ENOENT:
                return None
            raise
        return found.ino, found.attr.kind

    def searched(self, ino: int) -> object:
        """Return when the caller may look names up in a directory."""
        return self._ask(Lookup(ino, b"."))


class Walk:
    """One walk along a path: counts the symbolic links it follows, over all its parts."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._links = 0

    def inode(self, path: bytes, *, follow: bool) -> tuple[int, Attr]:
        """Return what a path stands for; its last symbolic link is followed when asked to, or when a slash follows."""
        return self._inode(ROOT, path, follow=follow)

    def place(self, path: bytes) -> Place:
        """Return where the last name of a path stands, whether or not anything has that name."""
        return self._place(ROOT, path)

    def free_place(self, path: bytes) -> Place:
        """Return where something that is no directory shall be made. A slash behind its name is ENOENT, or EEXIST."""
        place = self._place(ROOT, path)
        if place.slash:
            taken = place.name in (b".", b"..") or self._names.entry(place.parent, place.name) is not None
            raise Refused(errno.EEXIST if taken else errno.ENOENT)
        return place

    def rename_places(self, source: bytes, target: bytes, flags: int) -> tuple[Place, Place]:
        """Return where the two names of a rename stand. Slashes behind them are for directories only."""
        old, new = self._place(ROOT, source), self._place(ROOT, target)
        dots = (b".", b"..")
        if (old.slash or new.slash) and old.name not in dots and new.name not in dots:
            self._check_slashes(old, new, flags)
        return old, new

    def _check_slashes(self, old: Place, new: Place, flags: int) -> None:
        """Refuse in the order in which Linux does: what is missing or taken comes before what is no directory."""
        moved = self._names.entry(old.parent, old.name)
        if moved is None:
            raise Refused(errno.ENOENT)
        taken = self._names.entry(new.parent, new.name)
        if flags & NOREPLACE and taken is not None:
            raise Refused(errno.EEXIST)
        if flags & EXCHANGE:
            if taken is None:
                raise Refused(errno.ENOENT)
            if new.slash and taken[1] != DIRECTORY:
                raise Refused(errno.ENOTDIR)
        if moved[1] != DIRECTORY and (old.slash or (new.slash and not flags & EXCHANGE)):
            raise Refused(errno.ENOTDIR)

    def _place(self, start: int, path: bytes) -> Place:
        if not path:
            raise Refused(errno.ENOENT)
        if len(path) >= PATH_BYTES_MAX:
            raise Refused(errno.ENAMETOOLONG)
        if b"\0" in path:
            raise Refused(errno.EINVAL)
        ino = ROOT if path.startswith(b"/") else start
        names = [name for name in path.split(b"/") if name]
        for name in names[:-1]:
            ino, _ = self._step(ino, name, follow=True)
        self._names.searched(ino)
        return Place(ino, names[-1] if names else b".", slash=path.endswith(b"/"))

    def _inode(self, start: int, path: bytes, *, follow: bool) -> tuple[int, Attr]:
        place = self._place(start, path)
        ino, attr = self._step(place.parent, place.name, follow=follow or place.slash)
        if place.slash and not attr.is_directory:
            raise Refused(errno.ENOTDIR)
        return ino, attr

    def _step(self, parent: int, name: bytes, *, follow: bool) -> tuple[int, Attr]:
        found = self._names.lookup(parent, name)
        if not (follow and found.attr.is_symlink):
            return found.ino, found.attr
        self._links += 1
        if self._links > SYMLINKS_MAX:
            raise Refused(errno.ELOOP)
        return self._inode(parent, self._names.target(found.ino), follow=True)
