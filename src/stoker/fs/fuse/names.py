"""Requests about names and attributes: each asks the metadata and packs what it says."""

import errno
import os
from typing import Final, NamedTuple

from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.answers import EMPTY, Reply, attribute_answer, entry, filesystem, statx_answer
from stoker.fs.fuse.requests import Head
from stoker.fs.fuse.state import SUPERUSER, State
from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import (
    NOW,
    Access,
    Caller,
    GetAttr,
    GetXattr,
    Link,
    ListXattr,
    Lookup,
    Mkdir,
    Mknod,
    ReadLink,
    RemoveXattr,
    Rename,
    Rmdir,
    SetAttr,
    SetXattr,
    Symlink,
    Unlink,
    Usage,
)
from stoker.fs.meta.faults import Refused
from stoker.fs.store.interface import Bytes

_SECOND_NS: Final = 10**9
_INT64: Final = 1 << 63
_CAPABILITY: Final = b"security.capability"


def entered(state: State, found: Entry) -> Reply:
    """Return the answer that tells the kernel of an inode; it counts how often it was told."""
    state.inodes.remember(found.ino, found.attr.version)
    packed = entry(found.ino, found.attr, state.entry_ttl, state.attr_ttl)
    return Reply(packed, undo=lambda: state.inodes.forget(found.ino, 1))


# -- inodes


def lookup(state: State, head: Head, name: bytes) -> Reply:
    """Find what a name stands for."""
    return entered(state, state.client.ask(Lookup(head.node, name), caller=state.callers.of(head)))


def forget(state: State, head: Head, count: int) -> Reply:
    """Hear that the kernel no longer knows an inode."""
    state.inodes.forget(head.node, count)
    return EMPTY


def batch_forget(state: State, _head: Head, count: int, data: memoryview) -> Reply:
    """Hear that the kernel no longer knows many inodes; as many as the request really holds."""
    whole = min(count, len(data) // p.FORGET_ONE.size) * p.FORGET_ONE.size
    for ino, times in p.FORGET_ONE.iter_unpack(data[:whole]):
        state.inodes.forget(ino, times)
    return EMPTY


def getattr_(state: State, head: Head) -> Reply:
    """Tell attributes: whoever has an inode may see them."""
    found = state.client.ask(GetAttr(head.node))
    state.inodes.told(head.node, found.attr.version)
    return Reply(attribute_answer(head.node, found.attr, state.attr_ttl))


def statx(state: State, head: Head) -> Reply:
    """Tell attributes with the time of birth."""
    found = state.client.ask(GetAttr(head.node))
    state.inodes.told(head.node, found.attr.version)
    return Reply(statx_answer(head.node, found.attr, state.attr_ttl))


class Changes(NamedTuple):
    """The fields of SETATTR; `valid` tells which of them are meant."""

    valid: int
    size: int
    atime: int
    mtime: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int


def setattr_(state: State, head: Head, *fields: int) -> Reply:
    """Change attributes."""
    request = attribute_changes(head.node, Changes(*fields))
    found = state.client.ask(request, caller=state.callers.of(head))
    state.inodes.told(head.node, found.attr.version)
    return Reply(attribute_answer(head.node, found.attr, state.attr_ttl))


def attribute_changes(ino: int, changes: Changes) -> SetAttr:
    """Return what SETATTR asks for. The present time that comes with a new size is left out: resizing sets it."""
    valid = changes.valid
    resized = bool(valid & p.FATTR_SIZE)
    if resized and changes.size >= _INT64:
        raise Refused(errno.EFBIG)
    atime_now, mtime_now = valid & p.FATTR_ATIME_NOW, valid & p.FATTR_MTIME_NOW
    has_atime = valid & p.FATTR_ATIME and not (atime_now and resized)
    has_mtime = valid & p.FATTR_MTIME and not (mtime_now and resized)
    return SetAttr(
        ino,
        mode=changes.mode & 0o7777 if valid & p.FATTR_MODE else None,
        uid=changes.uid if valid & p.FATTR_UID else None,
        gid=changes.gid if valid & p.FATTR_GID else None,
        size_bytes=changes.size if resized else None,
        atime_ns=_time(atime_now, changes.atime, changes.atime_ns) if has_atime else None,
        mtime_ns=_time(mtime_now, changes.mtime, changes.mtime_ns) if has_mtime else None,
        opened=resized and bool(valid & p.FATTR_FH),
    )


def _time(now: int, seconds: int, nanoseconds: int) -> int | str:
    if now:
        return NOW
    if nanoseconds >= _SECOND_NS:
        raise Refused(errno.EINVAL)
    return (seconds - 2 * _INT64 if seconds >= _INT64 else seconds) * _SECOND_NS + nanoseconds


def access(state: State, head: Head, mask: int) -> Reply:
    """Tell whether the caller may read, write or execute."""
    state.client.ask(Access(head.node, mask & 7), caller=state.callers.of(head))
    return EMPTY


def statfs(state: State, _head: Head) -> Reply:
    """Tell how much the volume holds and how much more it can take."""
    used = state.client.ask(Usage())
    return Reply(filesystem(used.bytes, state.free_bytes(), used.inodes))


# -- making and removing names


def readlink(state: State, head: Head) -> Reply:
    """Tell the target of a symbolic link."""
    return Reply(state.client.ask(ReadLink(head.node)).data)


def symlink(state: State, head: Head, name: bytes, target: bytes) -> Reply:
    """Make a symbolic link."""
    return entered(state, state.client.ask(Symlink(head.node, name, target), caller=state.callers.of(head)))


def mknod(state: State, head: Head, mode: int, rdev: int, umask: int, name: bytes) -> Reply:
    """Make a file, fifo, socket or device."""
    request = Mknod(head.node, name, mode, rdev, umask)
    return entered(state, state.client.ask(request, caller=state.callers.of(head)))


def mkdir(state: State, head: Head, mode: int, umask: int, name: bytes) -> Reply:
    """Make a directory."""
    return entered(state, state.client.ask(Mkdir(head.node, name, mode, umask), caller=state.callers.of(head)))


def unlink(state: State, head: Head, name: bytes) -> Reply:
    """Take a name away."""
    state.client.ask(Unlink(head.node, name), caller=state.callers.of(head))
    return EMPTY


def rmdir(state: State, head: Head, name: bytes) -> Reply:
    """Remove a directory."""
    state.client.ask(Rmdir(head.node, name), caller=state.callers.of(head))
    return EMPTY


def rename(state: State, head: Head, new_parent: int, name: bytes, new_name: bytes) -> Reply:
    """Move a name."""
    return rename2(state, head, new_parent, 0, name, new_name)


def rename2(state: State, head: Head, new_parent: int, flags: int, name: bytes, new_name: bytes) -> Reply:
    """Move a name, with flags."""
    state.client.ask(Rename(head.node, name, new_parent, new_name, flags), caller=state.callers.of(head))
    return EMPTY


def link(state: State, head: Head, ino: int, name: bytes) -> Reply:
    """Give an inode one more name."""
    return entered(state, state.client.ask(Link(ino, head.node, name), caller=state.callers.of(head)))


# -- extended attributes


def setxattr(state: State, head: Head, size: int, flags: int, name: bytes, value: memoryview) -> Reply:
    """Set an extended attribute."""
    if size > len(value):
        raise Refused(errno.EINVAL)
    request = SetXattr(head.node, name, bytes(value[:size]), flags)
    state.client.ask(request, caller=_attribute_caller(state, head, name))
    return EMPTY


def getxattr(state: State, head: Head, size: int, name: bytes) -> Reply:
    """Tell the value of an extended attribute. For capabilities the kernel asks before the first write to each file."""
    if name == _CAPABILITY and state.client.has_no_xattr(head.node):
        raise Refused(errno.ENODATA)
    caller = _attribute_caller(state, head, name)
    return _sized(state.client.ask(GetXattr(head.node, name), caller=caller).data, size)


def listxattr(state: State, head: Head, size: int) -> Reply:
    """Tell the names of extended attributes."""
    names = state.client.ask(ListXattr(head.node), caller=state.callers.of(head)).names
    return _sized(b"".join(name + b"\0" for name in names), size)


def removexattr(state: State, head: Head, name: bytes) -> Reply:
    """Remove an extended attribute."""
    state.client.ask(RemoveXattr(head.node, name), caller=_attribute_caller(state, head, name))
    return EMPTY


def _attribute_caller(state: State, head: Head, name: bytes) -> Caller:
    """Return who changes an attribute. Those of `security.` the kernel guards itself, and changes in its own name."""
    return SUPERUSER if name.startswith(b"security.") else state.callers.of(head)


def _sized(data: Bytes, size: int) -> Reply:
    """Return data for a buffer of `size` bytes, or with 0 how large one must be."""
    if not size:
        return Reply(p.XATTR_OUT.pack(len(data), 0))
    if len(data) > size:
        raise Refused(errno.ERANGE)
    return Reply(data)


def open_access(flags: int) -> int:
    """Return the access of open(2)'s flags as the metadata has it: read 1, write 2, or both."""
    mode = flags & os.O_ACCMODE
    return 3 if mode > 1 else mode + 1
