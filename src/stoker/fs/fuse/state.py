"""What a mount keeps in memory: inodes that the kernel knows, open files and directories, the groups of callers."""

import errno
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from stoker.core.errors import StokerError
from stoker.fs.client.client import Client
from stoker.fs.fuse.answers import duration, inval_inode
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.protocol import ROOT_NODE
from stoker.fs.fuse.requests import Head
from stoker.fs.fuse.waiting import Answered, Locks
from stoker.fs.meta.calls import Caller, GetAttr
from stoker.fs.meta.faults import Refused
from stoker.fs.store.interface import Bytes

H = TypeVar("H")
_GROUPS_SECONDS: Final = 1.0
_CALLERS_MAX: Final = 4096
SUPERUSER: Final = Caller()


class Inodes:
    """What the kernel knows: how often it was told of each inode and has not forgotten it, and which data it has seen.

    An inode's number is the kernel's number for it: nothing need be looked up here to serve a request.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._versions: dict[int, int] = {}
        self._mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def remember(self, ino: int, version: int) -> None:
        """Note that the kernel is told of an inode once more, with attributes of this version of its data."""
        with self._mutex:
            self._counts[ino] = self._counts.get(ino, 0) + 1
            self._told[ino] = version

    def count(self, ino: int) -> int:
        """Return how often the kernel knows an inode."""
        return self._counts.get(ino, 0)

    def told(self, ino: int, version: int) -> bool:
        """Note that the kernel is told attributes; tell whether those it had before were of the same data."""
        with self._mutex:
            if ino not in self._counts:
                return ino == ROOT_NODE
            before, self._told[ino] = self._told[ino], version
            return before == version

    def forget(self, ino: int, count: int) -> None:
        """Note that the kernel has forgotten an inode so many times; more than it was told is as often as it was."""
        with self._mutex:
            left = self._counts.get(ino, 0) - count
            if left > 0:
                self._counts[ino] = left
            else:
                self._counts.pop(ino, None)
                self._told.pop(ino, None)
                self._versions.pop(ino, None)

    def is_known(self, ino: int, version: int) -> bool:
        """Tell whether the kernel's pages of a file are of this version of its data, or newer."""
        return self._versions.get(ino) == version

    def opened(self, ino: int, version: int) -> bool:
        """Note with which version of its data a file is opened; tell whether the kernel's pages of it are that old.

        They are when nobody, not this mount either, has changed the data since they were last dropped: the version
        that was noted then is at most that of any page that was read afterwards.
        """
        with self._mutex:
            same = self._versions.get(ino) == version
            if ino in self._counts:
                self._versions[ino] = version
            return same


class Handles:
    """What is open, by the numbers that the kernel holds."""

    def __init__(self) -> None:
        self._open: dict[int, object] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, handle: object) -> int:
        """Keep what was opened; return its number."""
        number = next(self._numbers)
        self._open[number] = handle
        return number

    def get(self, number: int, kind: type[H]) -> H:
        """Return what is open. Raises Refused (EBADF) for a number that nobody has, or that is of another kind."""
        handle = self._open.get(number)
        if not isinstance(handle, kind):
            raise Refused(errno.EBADF)
        return handle

    def pop(self, number: int, kind: type[H]) -> H:
        """Return what is open, and keep it no longer."""
        handle = self.get(number, kind)
        self._open.pop(number, None)
        return handle

    def all(self, kind: type[H]) -> list[H]:
        """Return all that is open of a kind."""
        return [handle for handle in list(self._open.values()) if isinstance(handle, kind)]


class Callers:
    """Who asks, with the further groups of the process: the kernel does not tell them, so they are looked up.

    They are believed for a second. The superuser's are not asked for: he may do everything.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._proc = proc
        self._known: dict[tuple[int, int, int], tuple[float, Caller]] = {}

    def of(self, head: Head) -> Caller:
        """Return who sent a request."""
        if not head.uid:
            return Caller(0, head.gid)
        now, key = self._clock(), (head.pid, head.uid, head.gid)
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        caller = Caller(head.uid, head.gid, self._groups(head.pid))
        if len(self._known) >= _CALLERS_MAX:
            self._known.clear()
        self._known[key] = (now + _GROUPS_SECONDS, caller)
        return caller

    def _groups(self, pid: int) -> tuple[int, ...]:
        """Return a process's further groups; none when it is gone, or of another namespace."""
        if not pid:
            return ()
        try:
            status = (self._proc / str(pid) / "status").read_text(errors="replace")
        except OSError:
            return ()
        line = next((line for line in status.splitlines() if line.startswith("Groups:")), "")
        return tuple(int(word) for word in line.split()[1:] if word.isdecimal())


class State:
    """What the handlers of requests share.

    `free_bytes` tells how much the store can still take; `answer` gives the kernel the errno of a request that waited,
    and `notify` what it did not ask for.
    """

    def __init__(
        self,
        client: Client,
        options: MountOptions,
        *,
        free_bytes: Callable[[], int],
        answer: Answered,
        notify: Callable[[list[Bytes]], object],
        callers: Callers | None = None,
    ) -> None:
        self.client = client
        self.options = options
        self.free_bytes = free_bytes
        self.notify = notify
        self.inodes = Inodes()
        self.handles = Handles()
        self.callers = callers or Callers()
        self.locks = Locks(client, answer, self.drop_pages)
        self.entry_ttl = duration(0 if options.strict else options.entry_seconds)
        self.attr_ttl = duration(0 if options.strict else options.attr_seconds)

    def pages_are_old(self, ino: int) -> bool:
        """Tell whether the data of a file has changed since the kernel last dropped its pages of it."""
        return not self.inodes.is_known(ino, self.client.ask(GetAttr(ino)).attr.version)

    def drop_pages(self, ino: int) -> None:
        """Have the kernel forget a file's pages and size. It may wait for pages that are being read from us."""
        try:
            version = self.client.ask(GetAttr(ino)).attr.version
        except StokerError:
            return  # the session is lost or the file is gone: reading tells
        if not self.inodes.is_known(ino, version):
            self.notify(inval_inode(ino, 0, 0))
            self.inodes.opened(ino, version)
