"""A volume by paths, with the words of Python's `os`: what a caller without inode numbers works with.

Paths are bytes or text, absolute or relative to the root. Errors are MetaError, with the errno that a mounted file
system would give.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from stoker.fs.meta.answers import Content, Entry, Listed, Names, Refusal
from stoker.fs.meta.calls import (
    NOW,
    Access,
    Call,
    Caller,
    Create,
    GetXattr,
    Link,
    ListXattr,
    Mkdir,
    Mknod,
    ReadDir,
    ReadLink,
    RemoveXattr,
    Rename,
    Request,
    Rmdir,
    SetAttr,
    SetXattr,
    Symlink,
    Unlink,
)
from stoker.fs.meta.faults import MetaError, Refused, meta_error
from stoker.fs.meta.listing import LISTING_MAX
from stoker.fs.meta.naming import check_target
from stoker.fs.meta.paths import DIRECTORY, AskedNames, Place, SnapshotNames, Walk
from stoker.fs.meta.records import Attr
from stoker.fs.meta.renaming import check_flags
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.volume import Volume, refusals

A = TypeVar("A")
Path = bytes | str


class Tree:
    """A volume as one caller sees it. In this process each walk sees one state; elsewhere it asks name by name."""

    def __init__(self, volume: Metadata, caller: Caller | None = None, *, umask: int = 0o022) -> None:
        self.volume = volume
        self.caller = caller or Caller()
        self.umask = umask

    # -- walking

    @contextmanager
    def _walking(self, verb: str, path: bytes) -> Iterator[Walk]:
        with refusals(verb, path):
            if isinstance(self.volume, Volume):
                with self.volume.looking(self.caller) as context:
                    yield Walk(SnapshotNames(context))
            else:
                yield Walk(AskedNames(self.volume, self.caller))

    def _inode(self, verb: str, path: Path, *, follow: bool = True) -> tuple[int, Attr]:
        raw = _raw(path)
        with self._walking(verb, raw) as walk:
            return walk.inode(raw, follow=follow)

    def _free_place(self, verb: str, path: Path) -> Place:
        """Return where something that is no directory shall be made."""
        raw = _raw(path)
        with self._walking(verb, raw) as walk:
            return walk.free_place(raw)

    def _place(self, verb: str, path: Path, *, slash: int = 0) -> Place:
        """Return where a path's last name stands. `slash` is the errno for one that a slash follows, 0 when it may."""
        raw = _raw(path)
        with self._walking(verb, raw) as walk:
            place = walk.place(raw)
            if place.slash and slash:
                raise Refused(slash)
            return place

    def _run(self, verb: str, path: Path, request: Request[A]) -> A:
        try:
            return self.volume.run(request, caller=self.caller)
        except MetaError as error:
            raise meta_error(error.errno, verb, _shown(path), error.got) from None

    # -- looking

    def stat(self, path: Path, *, follow: bool = True) -> Entry:
        """Return the inode and attributes of a path, of a symbolic link's target unless not to `follow`."""
        return Entry(*self._inode("stat", path, follow=follow))

    def exists(self, path: Path) -> bool:
        """Tell whether a path stands for something that the caller may look up."""
        try:
            self._inode("stat", path)
        except MetaError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    def scandir(self, path: Path, *, plus: bool = False) -> Iterator[Listed]:
        """Return the entries of a directory by name, in pieces: what is made or removed meanwhile may show or not."""
        ino, _ = self._inode("readdir", path)
        after = b""
        while True:
            listing = self._run("readdir", path, ReadDir(ino, after, LISTING_MAX if not plus else 1000, plus))
            yield from listing.entries
            if not listing.more:
                return
            after = listing.entries[-1].name

    def listdir(self, path: Path) -> list[bytes]:
        """Return the names in a directory, in order."""
        return [entry.name for entry in self.scandir(path)]

    def readlink(self, path: Path) -> bytes:
        """Return the target of a symbolic link."""
        ino, _ = self._inode("readlink", path, follow=False)
        return self._run("readlink", path, ReadLink(ino)).data

    def access(self, path: Path, mask: int) -> bool:
        """Tell whether the caller may read (4), write (2), execute or search (1): any sum of these."""
        try:
            self._run("access", path, Access(self._inode("access", path)[0], mask))
        except MetaError as error:
            if error.errno == errno.EACCES:
                return False
            raise
        return True

    # -- making and removing

    def create(self, path: Path, mode: int = 0o666, *, exclusive: bool = True) -> Entry:
        """Make a regular file; return the one that is there, a symbolic link itself, unless `exclusive`."""
        place = self._place("create", path, slash=errno.EISDIR)
        return self._run("create", path, Create(place.parent, place.name, mode, self.umask, exclusive))

    def mkdir(self, path: Path, mode: int = 0o777) -> Entry:
        """Make a directory."""
        place = self._place("mkdir", path)
        return self._run("mkdir", path, Mkdir(place.parent, place.name, mode, self.umask))

    def makedirs(self, path: Path, mode: int = 0o777) -> None:
        """Make a directory and those above it that are missing; one that is there is no error."""
        names = _raw(path).split(b"/")
        for count in range(1, len(names) + 1):
            part = b"/".join(names[:count])
            if not part.strip(b"/"):
                continue
            try:
                self.mkdir(part, mode)
            except MetaError as error:
                if error.errno != errno.EEXIST or not self.stat(part).attr.is_directory:
                    raise

    def mknod(self, path: Path, mode: int, rdev: int = 0) -> Entry:
        """Make a file, fifo, socket or device."""
        place = self._free_place("mknod", path)
        return self._run("mknod", path, Mknod(place.parent, place.name, mode, rdev, self.umask))

    def symlink(self, target: Path, path: Path) -> Entry:
        """Make a symbolic link at `path`."""
        with refusals("symlink", _raw(path)):
            check_target(_raw(target))
        place = self._free_place("symlink", path)
        return self._run("symlink", path, Symlink(place.parent, place.name, _raw(target)))

    def link(self, source: Path, path: Path) -> Entry:
        """Give what `source` names, a symbolic link itself, one more name."""
        ino, _ = self._inode("link", source, follow=False)
        place = self._free_place("link", path)
        return self._run("link", path, Link(ino, place.parent, place.name))

    def unlink(self, path: Path) -> None:
        """Take a name from something that is no directory."""
        place = self._place("unlink", path)
        if place.slash:
            _, attr = self._inode("unlink", _raw(path).rstrip(b"/") or b"/", follow=False)
            raise meta_error(errno.EISDIR if attr.is_directory else errno.ENOTDIR, "unlink", _shown(path))
        self._run("unlink", path, Unlink(place.parent, place.name))

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        raw = _raw(path)
        if raw.startswith(b"/") and not raw.strip(b"/"):
            raise meta_error(errno.EBUSY, "rmdir", "/")
        place = self._place("rmdir", path)
        self._run("rmdir", path, Rmdir(place.parent, place.name))

    def rename(self, source: Path, target: Path, flags: int = 0) -> None:
        """Move a name; `flags` are NOREPLACE or EXCHANGE."""
        raw = _raw(source)
        with self._walking("rename", raw) as walk:
            check_flags(flags)
            old, new = walk.rename_places(raw, _raw(target), flags)
        self._run("rename", source, Rename(old.parent, old.name, new.parent, new.name, flags))

    def remove_tree(self, path: Path) -> int:
        """Remove a directory with all in it; return how many names went. Not one transaction: others see it shrink.

        What a symbolic link points to is left alone. Refuses the root (EBUSY), and `.` and `..` (EINVAL), untouched.
        """
        raw = _raw(path).rstrip(b"/")
        last = raw.rpartition(b"/")[2]
        if last in (b"", b".", b".."):
            raise meta_error(errno.EINVAL if last else errno.EBUSY, "rmdir", _shown(path))
        ino, attr = self._inode("rmdir", raw, follow=False)
        if not attr.is_directory:
            raise meta_error(errno.ENOTDIR, "rmdir", _shown(path))
        place = self._place("rmdir", raw)
        stack, removed, passed = [(place.parent, place.name, ino)], 0, {ino}
        while stack:
            parent, name, folder = stack[-1]
            below, count = self._empty(path, folder)
            removed += count
            for step in below:
                if step[2] in passed:  # a directory has one name: this one would be gone through for ever
                    raise meta_error(errno.EIO, "rmdir", _shown(path), f"inode {step[2]} has two names")
                passed.add(step[2])
            if below:
                stack += below
                continue
            stack.pop()
            self._run("rmdir", path, Rmdir(parent, name))
            removed += 1
        return removed

    def _empty(self, path: Path, folder: int) -> tuple[list[tuple[int, bytes, int]], int]:
        """Remove all but the directories from a directory, many in one transaction; return those and how many went."""
        below: list[tuple[int, bytes, int]] = []
        after, more, removed = b"", True, 0
        while more:
            listing = self._run("readdir", path, ReadDir(folder, after))
            more = listing.more
            below += [(folder, one.name, one.ino) for one in listing.entries if one.kind == DIRECTORY]
            names = [one.name for one in listing.entries if one.kind != DIRECTORY]
            if listing.entries:
                after = listing.entries[-1].name
            for answer in self.volume.submit([Call(Unlink(folder, name), self.caller) for name in names]):
                if isinstance(answer, Refusal) and answer.errno != errno.ENOENT:  # somebody else was faster
                    raise meta_error(answer.errno, "unlink", _shown(path), answer.detail)
                removed += not isinstance(answer, Refusal)
        return below, removed

    # -- attributes

    def chmod(self, path: Path, mode: int) -> None:
        """Set the mode."""
        self._run("chmod", path, SetAttr(self._inode("chmod", path)[0], mode=mode))

    def chown(self, path: Path, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        """Set the owner and the group; None leaves one as it is."""
        ino, _ = self._inode("chown", path, follow=follow)
        self._run("chown", path, SetAttr(ino, uid=uid, gid=gid))

    def utime(self, path: Path, times_ns: tuple[int, int] | None = None, *, follow: bool = True) -> None:
        """Set the times of access and change, in nanoseconds since 1970; to now when not told."""
        atime_ns, mtime_ns = times_ns if times_ns is not None else (NOW, NOW)
        ino, _ = self._inode("utime", path, follow=follow)
        self._run("utime", path, SetAttr(ino, atime_ns=atime_ns, mtime_ns=mtime_ns))

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Set the size of a file."""
        if size_bytes < 0:
            raise meta_error(errno.EINVAL, "truncate", _shown(path))
        ino, _ = self._inode("truncate", path)
        self._run("truncate", path, SetAttr(ino, size_bytes=size_bytes))

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0, *, follow: bool = True) -> None:
        """Set an extended attribute."""
        self._run("setxattr", path, SetXattr(self._inode("setxattr", path, follow=follow)[0], name, value, flags))

    def getxattr(self, path: Path, name: bytes, *, follow: bool = True) -> bytes:
        """Return the value of an extended attribute."""
        answer: Content = self._run("getxattr", path, GetXattr(self._inode("getxattr", path, follow=follow)[0], name))
        return answer.data

    def listxattr(self, path: Path, *, follow: bool = True) -> tuple[bytes, ...]:
        """Return the names of extended attributes."""
        answer: Names = self._run("listxattr", path, ListXattr(self._inode("listxattr", path, follow=follow)[0]))
        return answer.names

    def removexattr(self, path: Path, name: bytes, *, follow: bool = True) -> None:
        """Remove an extended attribute."""
        self._run("removexattr", path, RemoveXattr(self._inode("removexattr", path, follow=follow)[0], name))


def _raw(path: Path) -> bytes:
    return path if isinstance(path, bytes) else path.encode(errors="surrogateescape")


def _shown(path: Path) -> str:
    return _raw(path).decode(errors="backslashreplace")
