"""From a path to an inode, as the kernel walks one: symbolic links, `..`, trailing slashes, limits."""

import errno
from typing import Final

from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import EXCHANGE, NOREPLACE, Lookup, ReadLink
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.listing import readlink
from stoker.fs.meta.naming import lookup
from stoker.fs.meta.records import PATH_BYTES_MAX, Attr

SYMLINKS_MAX: Final = 40
DIRECTORY: Final = 4  # the highest four bits of its mode


class Place:
    """Where a path leads: the directory of its last name, that name, and whether a slash follows it."""

    __slots__ = ("name", "parent", "slash")

    def __init__(self, parent: int, name: bytes, *, slash: bool) -> None:
        self.parent = parent
        self.name = name
        self.slash = slash


class Walk:
    """One walk along a path: counts the symbolic links it follows, over all its parts."""

    def __init__(self, context: Context) -> None:
        self._context = context
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
            taken = place.name in (b".", b"..") or self._context.entry(place.parent, place.name) is not None
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
        moved = self._context.entry(old.parent, old.name)
        if moved is None:
            raise Refused(errno.ENOENT)
        taken = self._context.entry(new.parent, new.name)
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
        self._context.searched(ino)
        return Place(ino, names[-1] if names else b".", slash=path.endswith(b"/"))

    def _inode(self, start: int, path: bytes, *, follow: bool) -> tuple[int, Attr]:
        place = self._place(start, path)
        ino, attr = self._step(place.parent, place.name, follow=follow or place.slash)
        if place.slash and not attr.is_directory:
            raise Refused(errno.ENOTDIR)
        return ino, attr

    def _step(self, parent: int, name: bytes, *, follow: bool) -> tuple[int, Attr]:
        found = lookup(self._context, Lookup(parent, name))
        assert isinstance(found, Entry)
        if not (follow and found.attr.is_symlink):
            return found.ino, found.attr
        self._links += 1
        if self._links > SYMLINKS_MAX:
            raise Refused(errno.ELOOP)
        return self._inode(parent, readlink(self._context, ReadLink(found.ino)).data, follow=True)
