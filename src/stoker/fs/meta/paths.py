"""From a path to an inode, as the kernel walks one: symbolic links, `..`, trailing slashes, limits."""

import errno
from typing import Final

from stoker.fs.meta.calls import Entry, Lookup, ReadLink
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.listing import readlink
from stoker.fs.meta.naming import lookup
from stoker.fs.meta.records import PATH_BYTES_MAX, Attr

SYMLINKS_MAX: Final = 40


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
