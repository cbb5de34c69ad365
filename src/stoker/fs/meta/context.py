"""What a request is run with, and the few things that all of them do: find, load, check, store."""

import errno
import stat
from typing import Final

from stoker.core.errors import CorruptError
from stoker.fs.meta.acl import ACCESS_NAME, allowed, stored_acl
from stoker.fs.meta.calls import Caller
from stoker.fs.meta.faults import HELD, Refused
from stoker.fs.meta.keys import attr_key, entry_key, hold_key, session_key, xattr_key
from stoker.fs.meta.records import (
    HAS_ACL,
    NAME_BYTES_MAX,
    NAMES_HELD,
    TIME_NS_MAX,
    TIME_NS_MIN,
    Attr,
    Session,
    pack_attr,
    unpack_attr,
    unpack_entry,
    unpack_hold,
    unpack_session,
)
from stoker.fs.meta.view import View

MAY_READ: Final = 4
MAY_WRITE: Final = 2
MAY_SEARCH: Final = 1
S_ISUID: Final = 0o4000
S_ISGID: Final = 0o2000
S_ISVTX: Final = 0o1000


class Context:
    """One request in its transaction: what it sees, the time, who asks, and in which session."""

    __slots__ = ("caller", "now_ns", "session", "view")

    def __init__(self, view: View, now_ns: int, caller: Caller, session: int) -> None:
        self.view = view
        self.now_ns = clamped(now_ns)
        self.caller = caller
        self.session = session

    @property
    def is_superuser(self) -> bool:
        """Tell whether the caller may do everything."""
        return self.caller.uid == 0

    # -- inodes

    def load(self, ino: int) -> Attr:
        """Return the attributes of an inode. Raises Refused (ENOENT)."""
        data = self.view.get(attr_key(ino))
        if data is None:
            raise Refused(errno.ENOENT)
        return unpack_attr(data)

    def store(self, ino: int, attr: Attr) -> None:
        """Write the attributes of an inode."""
        self.view.put(attr_key(ino), pack_attr(attr))

    def kept(self, key: bytes, what: str) -> bytes:
        """Return a value that another row says is there. Raises CorruptError when it is not."""
        data = self.view.get(key)
        if data is None:
            raise CorruptError(f"{what} is missing", where=key.hex(), remedy="run `stoker fs fsck`")
        return data

    def directory(self, ino: int) -> Attr:
        """Return the attributes of a directory. Raises Refused (ENOENT, ENOTDIR)."""
        attr = self.load(ino)
        if not attr.is_directory:
            raise Refused(errno.ENOTDIR)
        return attr

    def searched(self, ino: int) -> Attr:
        """Return the attributes of a directory that the caller may look names up in. Raises Refused (EACCES too)."""
        attr = self.directory(ino)
        self.need(ino, attr, MAY_SEARCH)
        return attr

    def entry(self, parent: int, name: bytes) -> tuple[int, int] | None:
        """Return the inode and kind that a name stands for, None when there is none. Raises Refused for a bad name."""
        check_name(name)
        data = self.view.get(entry_key(parent, name))
        return None if data is None else unpack_entry(data)

    # -- permissions

    def may(self, ino: int, attr: Attr, wanted: int) -> bool:
        """Tell whether the caller may do all of `wanted` with an inode."""
        caller = self.caller
        if caller.uid == 0:
            # The superuser may all, but executes only what somebody may execute.
            return not wanted & MAY_SEARCH or attr.is_directory or bool(attr.mode & 0o111)
        # As Linux does: a list whose mask allows nothing is not asked, so whom it names is one of the others then.
        if attr.flags & HAS_ACL and attr.mode & 0o070:
            data = self.kept(xattr_key(ino, ACCESS_NAME), "access control list of an inode")
            return allowed(stored_acl(data), attr.uid, attr.gid, caller, wanted)
        return mode_allows(attr, caller, wanted)

    def need(self, ino: int, attr: Attr, wanted: int) -> None:
        """Raise Refused (EACCES) unless the caller may do all of `wanted`."""
        if not self.may(ino, attr, wanted):
            raise Refused(errno.EACCES)

    def owns(self, attr: Attr) -> bool:
        """Tell whether the caller is the owner, or the superuser."""
        return self.caller.uid in (0, attr.uid)

    def need_owner(self, attr: Attr) -> None:
        """Raise Refused (EPERM) unless the caller owns the inode."""
        if not self.owns(attr):
            raise Refused(errno.EPERM)

    def need_removal(self, parent: int, directory: Attr, victim: Attr) -> None:
        """Raise Refused unless the caller may take a name out of a directory: EACCES, or EPERM in a sticky one."""
        self.need(parent, directory, MAY_WRITE | MAY_SEARCH)
        self.need_free(parent, directory)
        if directory.mode & S_ISVTX and not (self.owns(victim) or self.caller.uid == directory.uid):
            raise Refused(errno.EPERM)

    def need_addition(self, parent: int, directory: Attr) -> None:
        """Raise Refused unless the caller may put a name into a directory: EACCES; ENOENT in a removed one."""
        if not directory.nlink:
            raise Refused(errno.ENOENT)
        self.need(parent, directory, MAY_WRITE | MAY_SEARCH)
        self.need_free(parent, directory)

    def need_free(self, ino: int, directory: Attr) -> None:
        """Raise Refused (HELD) while another session holds the names of a directory; a hold that is over goes."""
        if not directory.flags & NAMES_HELD:
            return
        data = self.view.get(hold_key(ino))
        hold = None if data is None else unpack_hold(data)  # None: it went a moment ago, in this request
        if hold is not None and hold.session == self.session:
            return
        if hold is not None and hold.until_ns > self.now_ns:
            raise Refused(HELD, str(ino))
        self.view.delete(hold_key(ino))
        directory.flags &= ~NAMES_HELD
        self.store(ino, directory)

    # -- sessions

    def live_session(self) -> Session:
        """Return the caller's session. Raises Refused (ESTALE) when there is none, or it is over."""
        data = self.view.get(session_key(self.session))
        session = None if data is None else unpack_session(data)
        if session is None or session.closing or session.expires_ns <= self.now_ns:
            raise Refused(errno.ESTALE)
        return session

    def session_is_over(self, number: int) -> bool:
        """Tell whether a session is gone, being closed, or gave no sign of life in time."""
        data = self.view.get(session_key(number))
        session = None if data is None else unpack_session(data)
        return session is None or session.closing or session.expires_ns <= self.now_ns


def mode_allows(attr: Attr, caller: Caller, wanted: int) -> bool:
    """Tell whether the bits of the mode alone let a caller who is not the superuser do all of `wanted`."""
    if caller.uid == attr.uid:
        bits = attr.mode >> 6
    elif caller.belongs_to(attr.gid):
        bits = attr.mode >> 3
    else:
        bits = attr.mode
    return bits & wanted == wanted


def check_name(name: bytes) -> None:
    """Raise Refused for what cannot be a name: ENOENT empty, ENAMETOOLONG, EINVAL with a slash or NUL in it."""
    if not name:
        raise Refused(errno.ENOENT)
    if len(name) > NAME_BYTES_MAX:
        raise Refused(errno.ENAMETOOLONG)
    if b"/" in name or b"\0" in name:
        raise Refused(errno.EINVAL)


def clamped(time_ns: int) -> int:
    """Return a time within what the attributes can hold: the years 1677 to 2262."""
    return min(max(time_ns, TIME_NS_MIN), TIME_NS_MAX)


def touch(attr: Attr, now_ns: int) -> None:
    """Note that the content of an inode has changed now."""
    attr.mtime_ns = attr.ctime_ns = now_ns
    attr.version += 1


def drop_privileges(attr: Attr) -> None:
    """Take the setuid bit, and the setgid bit of what a group may execute."""
    attr.mode &= ~S_ISUID
    if attr.mode & stat.S_IXGRP:
        attr.mode &= ~S_ISGID
