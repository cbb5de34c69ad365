"""Attributes: mode, owner, times, size, extended ones and access control lists. Rules as Linux's VFS has them."""

import errno
import stat
from typing import Final

from stoker.fs.meta.acl import (
    ACCESS_NAME,
    DEFAULT_NAME,
    check_acl,
    is_minimal,
    mode_of,
    pack_acl,
    parse_acl,
    stored_acl,
    with_mode,
)
from stoker.fs.meta.answers import Answer, Content, Done, Entry, Names
from stoker.fs.meta.calls import (
    NOW,
    XATTR_CREATE,
    XATTR_REPLACE,
    Access,
    GetAttr,
    GetXattr,
    ListXattr,
    RemoveXattr,
    SetAttr,
    SetXattr,
)
from stoker.fs.meta.content import need_writer, resize
from stoker.fs.meta.context import MAY_READ, MAY_WRITE, S_ISGID, S_ISVTX, Context, clamped, drop_privileges
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import name_in, xattr_key
from stoker.fs.meta.records import (
    FILE_BYTES_MAX,
    HAS_ACL,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    NAME_BYTES_MAX,
    XATTR_BYTES_MAX,
    XATTR_LIST_BYTES_MAX,
    Attr,
)

_ID_MAX: Final = 2**32 - 2
_NAMES_AT_ONCE: Final = 64
_ACL_FLAGS: Final = {ACCESS_NAME: HAS_ACL, DEFAULT_NAME: HAS_DEFAULT_ACL}


def getattr_(context: Context, request: GetAttr) -> Answer:
    """Return the attributes of an inode."""
    return Entry(request.ino, context.load(request.ino))


def access(context: Context, request: Access) -> Answer:
    """Tell whether the caller may do what the mask says."""
    if request.mask & ~7:
        raise Refused(errno.EINVAL)
    context.need(request.ino, context.load(request.ino), request.mask)
    return Done()


def setattr_(context: Context, request: SetAttr) -> Answer:
    """Change attributes, all that were asked for or none."""
    ino = request.ino
    attr = context.load(ino)
    if request.size_bytes is not None:
        _resize(context, ino, attr, request.size_bytes, opened=request.opened)
    if request.uid is not None or request.gid is not None:
        _chown(context, attr, request.uid, request.gid)
    if request.mode is not None:
        _chmod(context, ino, attr, request.mode)
    if request.atime_ns is not None or request.mtime_ns is not None:
        _set_times(context, ino, attr, request)
    attr.ctime_ns = context.now_ns
    context.store(ino, attr)
    return Entry(ino, attr)


def _resize(context: Context, ino: int, attr: Attr, size_bytes: int, *, opened: bool) -> None:
    if attr.is_directory:
        raise Refused(errno.EISDIR)
    if not attr.is_file or size_bytes < 0:
        raise Refused(errno.EINVAL)
    if opened:
        need_writer(context, ino)
    else:
        context.need(ino, attr, MAY_WRITE)
    if size_bytes > FILE_BYTES_MAX:
        raise Refused(errno.EFBIG)
    resize(context, ino, attr, size_bytes)


def _chown(context: Context, attr: Attr, uid: int | None, gid: int | None) -> None:
    if any(number is not None and not 0 <= number <= _ID_MAX for number in (uid, gid)):
        raise Refused(errno.EINVAL)
    if not context.is_superuser:
        if context.caller.uid != attr.uid or uid not in (None, attr.uid):
            raise Refused(errno.EPERM)
        if gid not in (None, attr.gid) and not context.caller.belongs_to(gid or 0):
            raise Refused(errno.EPERM)
    attr.uid = attr.uid if uid is None else uid
    attr.gid = attr.gid if gid is None else gid
    if not attr.is_directory:
        drop_privileges(attr)


def _chmod(context: Context, ino: int, attr: Attr, mode: int) -> None:
    context.need_owner(attr)
    if attr.is_symlink:
        raise Refused(errno.EOPNOTSUPP)
    mode &= 0o7777
    if not context.is_superuser and not context.caller.belongs_to(attr.gid):
        mode &= ~S_ISGID
    attr.mode = stat.S_IFMT(attr.mode) | mode
    if attr.flags & HAS_ACL:
        data = context.kept(xattr_key(ino, ACCESS_NAME), "access control list of an inode")
        context.view.put(xattr_key(ino, ACCESS_NAME), pack_acl(with_mode(stored_acl(data), mode)))


def _set_times(context: Context, ino: int, attr: Attr, request: SetAttr) -> None:
    """Set times: the moment is whoever may write, any other time is the owner's to set."""
    given = (request.atime_ns, request.mtime_ns)
    if any(isinstance(time, str) and time != NOW for time in given):
        raise Refused(errno.EINVAL)
    if not context.owns(attr):
        if given != (NOW, NOW):
            raise Refused(errno.EPERM)
        context.need(ino, attr, MAY_WRITE)
    atime_ns, mtime_ns = (context.now_ns if isinstance(time, str) else time for time in given)
    attr.atime_ns = attr.atime_ns if atime_ns is None else clamped(atime_ns)
    attr.mtime_ns = attr.mtime_ns if mtime_ns is None else clamped(mtime_ns)


# -- extended attributes


def _check_xattr_name(name: bytes) -> None:
    """Refuse (ERANGE) a name of a bad length."""
    if not 0 < len(name) <= NAME_BYTES_MAX:
        raise Refused(errno.ERANGE)


def _check_space(name: bytes) -> None:
    """Refuse a name of an unknown space (EOPNOTSUPP), or of nothing in one (EINVAL): asked behind permissions."""
    space, dot, rest = name.partition(b".")
    if name in _ACL_FLAGS:
        return
    if not dot or space not in (b"user", b"trusted", b"security"):
        raise Refused(errno.EOPNOTSUPP)
    if not rest or b"\0" in rest:
        raise Refused(errno.EINVAL)


def _may_see(context: Context, name: bytes) -> bool:
    return not name.startswith(b"trusted.") or context.is_superuser


def _need_xattr(context: Context, ino: int, attr: Attr, name: bytes, wanted: int) -> None:
    """Refuse who may not read or write an attribute of this name: each space has its own rule."""
    writes = wanted == MAY_WRITE
    if name.startswith(b"security."):
        if writes and not context.is_superuser:
            raise Refused(errno.EPERM)
    elif name.startswith(b"trusted."):
        if not context.is_superuser:
            raise Refused(errno.EPERM if writes else errno.ENODATA)
    elif not name.startswith(b"system."):
        if name.startswith(b"user.") and not (attr.is_file or attr.is_directory):
            raise Refused(errno.EPERM if writes else errno.ENODATA)
        if name.startswith(b"user.") and writes and attr.is_directory and attr.mode & S_ISVTX:
            context.need_owner(attr)
        context.need(ino, attr, wanted)
    _check_space(name)


def setxattr(context: Context, request: SetXattr) -> Answer:
    """Set an extended attribute or an access control list."""
    _check_xattr_name(request.name)
    if request.flags not in (0, XATTR_CREATE, XATTR_REPLACE):
        raise Refused(errno.EINVAL)
    if len(request.value) > XATTR_BYTES_MAX:
        raise Refused(errno.E2BIG)
    ino = request.ino
    attr = context.load(ino)
    _need_xattr(context, ino, attr, request.name, MAY_WRITE)
    if request.name in _ACL_FLAGS:
        _set_acl(context, ino, attr, request.name, request.value)
    else:
        _set_plain(context, ino, attr, request)
    attr.ctime_ns = context.now_ns
    context.store(ino, attr)
    return Done()


def _set_plain(context: Context, ino: int, attr: Attr, request: SetXattr) -> None:
    old = context.view.get(xattr_key(ino, request.name))
    if request.flags == XATTR_CREATE and old is not None:
        raise Refused(errno.EEXIST)
    if request.flags == XATTR_REPLACE and old is None:
        raise Refused(errno.ENODATA)
    if old is None:
        _check_list(context, ino, request.name)
    context.view.put(xattr_key(ino, request.name), request.value)
    attr.flags |= HAS_XATTR


def _check_list(context: Context, ino: int, name: bytes) -> None:
    """Refuse (ENOSPC) a name with which no list of the names could be returned whole."""
    names = _names(context, ino)
    if sum(len(one) + 1 for one in (*names, name)) > XATTR_LIST_BYTES_MAX:
        raise Refused(errno.ENOSPC)


def _names(context: Context, ino: int) -> list[bytes]:
    """Return the names of an inode's attributes, with no more than a few of their values in memory at a time."""
    names: list[bytes] = []
    prefix, after = xattr_key(ino), b""
    while rows := context.view.scan(prefix, after, _NAMES_AT_ONCE):
        names += [name_in(key) for key, _ in rows]
        after = rows[-1][0]
    return names


def _set_acl(context: Context, ino: int, attr: Attr, name: bytes, value: bytes) -> None:
    """Set a list, or with no entries take it away."""
    acl = parse_acl(value) if value else ()
    if attr.is_symlink:
        raise Refused(errno.EOPNOTSUPP)
    if name == DEFAULT_NAME and not attr.is_directory:
        if not acl:
            return
        raise Refused(errno.EACCES)
    context.need_owner(attr)
    if not acl:
        _drop_xattr(context, ino, attr, name)
        return
    check_acl(acl)
    if name == ACCESS_NAME:
        mode = attr.mode & ~0o777 | mode_of(acl)
        if not context.is_superuser and not context.caller.belongs_to(attr.gid):
            mode &= ~S_ISGID
        attr.mode = mode
        if is_minimal(acl):
            _drop_xattr(context, ino, attr, name)
            return
    context.view.put(xattr_key(ino, name), pack_acl(acl))
    attr.flags |= HAS_XATTR | _ACL_FLAGS[name]


def _drop_xattr(context: Context, ino: int, attr: Attr, name: bytes) -> None:
    context.view.delete(xattr_key(ino, name))
    attr.flags &= ~_ACL_FLAGS.get(name, 0)
    if not context.view.scan(xattr_key(ino), limit=1):
        attr.flags &= ~HAS_XATTR


def removexattr(context: Context, request: RemoveXattr) -> Answer:
    """Remove an extended attribute; without its list, the mode alone decides."""
    _check_xattr_name(request.name)
    ino = request.ino
    attr = context.load(ino)
    _need_xattr(context, ino, attr, request.name, MAY_WRITE)
    if request.name in _ACL_FLAGS:
        _set_acl(context, ino, attr, request.name, b"")
    elif context.view.get(xattr_key(ino, request.name)) is None:
        raise Refused(errno.ENODATA)
    else:
        _drop_xattr(context, ino, attr, request.name)
    attr.ctime_ns = context.now_ns
    context.store(ino, attr)
    return Done()


def getxattr(context: Context, request: GetXattr) -> Answer:
    """Return the value of an extended attribute."""
    _check_xattr_name(request.name)
    attr = context.load(request.ino)
    _need_xattr(context, request.ino, attr, request.name, MAY_READ)
    value = context.view.get(xattr_key(request.ino, request.name))
    if value is None:
        raise Refused(errno.ENODATA)
    return Content(value)


def listxattr(context: Context, request: ListXattr) -> Answer:
    """Return the names that the caller may see."""
    attr = context.load(request.ino)
    if not attr.flags & HAS_XATTR:
        return Names(())
    return Names(tuple(name for name in _names(context, request.ino) if _may_see(context, name)))
