"""Requests about locks: flock's over whole files and fcntl's over ranges, seen by all clients of the volume."""

import errno
import fcntl
from typing import Final, NamedTuple

from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply
from stoker.fs.fuse.files import opened
from stoker.fs.fuse.requests import Head
from stoker.fs.fuse.state import State
from stoker.fs.meta.calls import WRITE, FindLock, SetLock
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.locking import END

_LAST: Final = END - 1
_EXCLUSIVE: Final[dict[int, bool | None]] = {fcntl.F_RDLCK: False, fcntl.F_WRLCK: True, fcntl.F_UNLCK: None}


class Wanted(NamedTuple):
    """The fields of a request about a lock; `end` is its last byte."""

    handle: int
    owner: int
    start: int
    end: int
    kind: int
    pid: int
    flags: int


def _request(state: State, head: Head, want: Wanted) -> SetLock:
    """Return the lock that a request wants. Raises Refused (EBADF, EINVAL)."""
    opened(state, head, want.handle)
    if want.kind not in _EXCLUSIVE or not want.start <= want.end <= _LAST:
        raise Refused(errno.EINVAL)
    whole = bool(want.flags & p.LK_FLOCK)
    return SetLock(head.node, want.owner, _EXCLUSIVE[want.kind], want.start, want.end + 1, whole)


def getlk(state: State, head: Head, *fields: int) -> Reply:
    """Tell which lock stands in the way."""
    want = Wanted(*fields)
    lock = _request(state, head, want)
    if lock.exclusive is None:
        raise Refused(errno.EINVAL)
    held = state.client.ask(FindLock(lock.ino, lock.owner, lock.exclusive, lock.start, lock.end, lock.whole)).held
    if held is None:
        return Reply(p.LOCK.pack(want.start, want.end, fcntl.F_UNLCK, 0))
    pid = state.locks.pid_of(head.node, held.owner) if held.session == state.client.session.number else 0
    return Reply(p.LOCK.pack(held.start, held.end - 1, fcntl.F_WRLCK if held.exclusive else fcntl.F_RDLCK, pid))


def setlk(state: State, head: Head, *fields: int) -> Reply | None:
    """Take or give back a lock at once."""
    want = Wanted(*fields)
    lock = _request(state, head, want)
    if lock.exclusive is None:
        return _given_back(state, head, want, lock)
    _show(state, head, want, lock)
    state.locks.take(lock, want.pid)
    return _granted(state, head)


def setlkw(state: State, head: Head, *fields: int) -> Reply | None:
    """Take a lock, or wait for it: then the answer comes later. Nobody waits to give one back."""
    want = Wanted(*fields)
    lock = _request(state, head, want)
    if lock.exclusive is None:
        return _given_back(state, head, want, lock)
    _show(state, head, want, lock)
    return _granted(state, head) if state.locks.wait(head.unique, lock, want.pid) else None


def _given_back(state: State, head: Head, want: Wanted, lock: SetLock) -> Reply:
    """Give back a lock, even when what was written under it cannot be shown, which the program is told."""
    try:
        _show(state, head, want, lock)
    finally:
        state.locks.take(lock, want.pid)
    return EMPTY


def _show(state: State, head: Head, want: Wanted, lock: SetLock) -> None:
    """Show what was written under a lock before others may read under theirs: unless an exclusive one is taken."""
    file = opened(state, head, want.handle).file
    if lock.exclusive is not True and file.access & WRITE:
        file.flush()


def _granted(state: State, head: Head) -> Reply | None:
    """Answer who got a lock: at once when the kernel's pages of the file are as new as its data."""
    if not state.pages_are_old(head.node):
        return EMPTY
    state.locks.answer_renewed(head.unique, head.node)
    return None


def interrupt(state: State, _head: Head, unique: int) -> Reply:
    """Hear that a program no longer waits; what is being worked on is answered soon in any case."""
    state.locks.interrupt(unique)
    return EMPTY
