"""A plain directory of this machine behind the words of `Tree`: what a model test holds a volume against."""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stoker.fs.meta import Tree
from stoker.fs.meta.calls import Caller
from stoker.fs.meta.keys import ROOT

AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
IS_ROOT = os.geteuid() == 0


def callers() -> list[Caller]:
    """Who may act: several users for the superuser, else whoever runs the tests."""
    if not IS_ROOT:
        return [Caller(os.geteuid(), os.getegid(), tuple(os.getgroups()))]
    return [Caller(0, 0, (0,)), Caller(1000, 1000, (1000, 1002)), Caller(1001, 1001, (1001, 1000))]


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Let the system judge by another user, where that is possible."""
    if not IS_ROOT or caller.uid == 0:
        yield
        return
    before = os.getgroups()
    os.setgroups(list(caller.groups))
    os.setegid(caller.gid)
    os.seteuid(caller.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


class RealTree:
    """The operations of `Tree` on a folder, by the system's own calls. Paths are relative to it."""

    def __init__(self, folder: Path, caller: Caller) -> None:
        self.folder = folder
        self.caller = caller

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            before = os.open(".", os.O_RDONLY)
            os.chdir(self.folder)
            mask = os.umask(0o022)
            try:
                with acting_as(self.caller):
                    return getattr(self, f"_{name}")(*arguments, **named)
            finally:
                os.umask(mask)
                os.fchdir(before)
                os.close(before)

        return call

    def _create(self, path: bytes, mode: int) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def _mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(path, mode)

    def _mknod(self, path: bytes, mode: int) -> None:
        os.mknod(path, mode)

    def _symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)

    def _link(self, source: bytes, path: bytes) -> None:
        os.link(source, path, follow_symlinks=False)

    def _unlink(self, path: bytes) -> None:
        os.unlink(path)

    def _rmdir(self, path: bytes) -> None:
        os.rmdir(path)

    def _rename(self, source: bytes, target: bytes, flags: int) -> None:
        if _libc.renameat2(AT_FDCWD, source, AT_FDCWD, target, flags):
            raise OSError(ctypes.get_errno(), "rename")

    def _chmod(self, path: bytes, mode: int) -> None:
        os.chmod(path, mode)

    def _chown(self, path: bytes, uid: int | None, gid: int | None) -> None:
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid, follow_symlinks=False)

    def _truncate(self, path: bytes, size_bytes: int) -> None:
        os.truncate(path, size_bytes)

    def _utime(self, path: bytes, times_ns: tuple[int, int] | None) -> None:
        os.utime(path, ns=times_ns) if times_ns else os.utime(path)

    def _readlink(self, path: bytes) -> bytes:
        return os.readlink(path)

    def _listdir(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(path))

    def _access(self, path: bytes, mask: int) -> bool:
        return os.access(path, mask, effective_ids=True)

    def _setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        os.setxattr(path, name, value, flags)

    def _getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(path, name)

    def _removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(path, name)

    def _listxattr(self, path: bytes) -> list[bytes]:
        names = [os.fsencode(name) for name in os.listxattr(path)]
        return sorted(name for name in names if not name.startswith(b"security."))

    def _stat(self, path: bytes, follow: bool) -> tuple[int, ...]:
        found = os.stat(path, follow_symlinks=follow)
        size_bytes = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
        links = 0 if stat.S_ISDIR(found.st_mode) else found.st_nlink
        return (found.st_mode, found.st_uid, found.st_gid, size_bytes, links)


class VolumeTree:
    """The same operations on a volume, with answers in the same form."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tree, name)

    def create(self, path: bytes, mode: int) -> None:
        """Make a file."""
        self.tree.create(path, mode)

    def listxattr(self, path: bytes) -> list[bytes]:
        """Return the names of extended attributes."""
        return sorted(self.tree.listxattr(path))

    def chown(self, path: bytes, uid: int | None, gid: int | None) -> None:
        """Change the owner, of a symbolic link itself."""
        self.tree.chown(path, uid, gid, follow=False)

    def stat(self, path: bytes, follow: bool) -> tuple[int, ...]:
        """Return what both sides can be compared by."""
        attr = self.tree.stat(path, follow=follow).attr
        plain = not attr.is_directory
        return (attr.mode, attr.uid, attr.gid, attr.size_bytes * plain, attr.nlink * plain)


def real_picture(folder: Path) -> dict[bytes, tuple[Any, ...]]:
    """Return all that lies in a folder: path to mode, owner, size, links, target, and a number for its inode."""
    found: dict[bytes, tuple[Any, ...]] = {}
    groups: dict[int, int] = {}

    def look(path: bytes, shown: bytes) -> None:
        for name in sorted(os.listdir(path)):
            full, told = path + b"/" + name, shown + b"/" + name
            facts = os.lstat(full)
            is_folder = stat.S_ISDIR(facts.st_mode)
            target = os.readlink(full) if stat.S_ISLNK(facts.st_mode) else b""
            group = groups.setdefault(facts.st_ino, len(groups))
            plain = (0, 0) if is_folder else (facts.st_size, facts.st_nlink)
            found[told] = (facts.st_mode, facts.st_uid, facts.st_gid, *plain, target, group)
            if is_folder:
                look(full, told)

    look(os.fsencode(folder), b"")
    return found


def volume_picture(tree: Tree) -> dict[bytes, tuple[Any, ...]]:
    """Return the same of a volume."""
    found: dict[bytes, tuple[Any, ...]] = {}
    groups: dict[int, int] = {}

    def look(path: bytes) -> None:
        for entry in list(tree.scandir(path or b"/", plus=True)):
            attr, told = entry.attr, path + b"/" + entry.name
            assert attr is not None and entry.ino != ROOT
            target = tree.readlink(told) if attr.is_symlink else b""
            group = groups.setdefault(entry.ino, len(groups))
            plain = (0, 0) if attr.is_directory else (attr.size_bytes, attr.nlink)
            found[told] = (attr.mode, attr.uid, attr.gid, *plain, target, group)
            if attr.is_directory:
                look(told)

    look(b"")
    return found
