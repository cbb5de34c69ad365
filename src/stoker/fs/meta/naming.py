"""Names: what they stand for, making them, removing them. Each function is one request in a transaction."""

import errno
import stat
from typing import Final

from stoker.fs.meta.acl import ACCESS_NAME, DEFAULT_NAME, inherited, is_minimal, pack_acl, stored_acl
from stoker.fs.meta.answers import Answer, Done, Entry
from stoker.fs.meta.calls import READ, WRITE, Caller, Create, Link, Lookup, Mkdir, Mknod, Open, Rmdir, Symlink, Unlink
from stoker.fs.meta.content import dispose, open_file, opened
from stoker.fs.meta.context import S_ISGID, Context, touch
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import (
    INODES,
    NEXT_INODE,
    ROOT,
    attr_key,
    entry_key,
    hold_key,
    orphan_key,
    parent_key,
    target_key,
    xattr_key,
)
from stoker.fs.meta.records import (
    HAS_ACL,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    LINKS_MAX,
    NAMES_HELD,
    SYMLINK_BYTES_MAX,
    Attr,
    pack_count,
    pack_entry,
    unpack_count,
)

_NODE_KINDS: Final = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


def lookup(context: Context, request: Lookup) -> Answer:
    """Return what a name stands for."""
    parent = context.searched(request.parent)
    if request.name == b".":
        return Entry(request.parent, parent)
    if request.name == b"..":
        above = parent.parent or ROOT
        return Entry(above, context.load(above))
    found = context.entry(request.parent, request.name)
    if found is None:
        raise Refused(errno.ENOENT)
    return Entry(found[0], context.load(found[0]))


def create(context: Context, request: Create) -> Answer:
    """Make a regular file, or find the one that is there; open it when asked to."""
    _refuse_dots(request.name, errno.EEXIST if request.exclusive else errno.EISDIR)
    if request.access & ~(READ | WRITE):
        raise Refused(errno.EINVAL)
    if request.ino and (again := _made_before(context, request)) is not None:
        return again
    context.searched(request.parent)
    found = context.entry(request.parent, request.name)
    if found is None:
        mode = stat.S_IFREG | request.mode & 0o7777
        given = (request.ino, request.made_ns)
        ino, attr = _make(context, request.parent, request.name, mode, umask=request.umask, given=given)
        if request.access:
            attr = opened(context, ino, attr, request.access)
        return Entry(ino, attr, made=True)
    if request.exclusive or request.ino:
        raise Refused(errno.EEXIST)
    attr = context.load(found[0])
    if attr.is_directory:
        raise Refused(errno.EISDIR)
    if request.access:
        return open_file(context, Open(found[0], request.access))
    return Entry(found[0], attr)


def _made_before(context: Context, request: Create) -> Answer | None:
    """Return the file that this request has made before, None when it has not. Refuses (EINVAL) a number not taken."""
    if request.ino >= context.view.count(NEXT_INODE):
        raise Refused(errno.EINVAL)
    if context.view.get(attr_key(request.ino)) is None:
        return None
    return Entry(request.ino, context.load(request.ino), made=True)


def mkdir(context: Context, request: Mkdir) -> Answer:
    """Make a directory."""
    _refuse_taken(context, request.parent, request.name)
    mode = stat.S_IFDIR | request.mode & 0o7777
    return Entry(*_make(context, request.parent, request.name, mode, umask=request.umask), made=True)


def mknod(context: Context, request: Mknod) -> Answer:
    """Make a file, fifo, socket or device. Devices are the superuser's."""
    _refuse_taken(context, request.parent, request.name)
    kind = stat.S_IFMT(request.mode) or stat.S_IFREG
    if kind not in _NODE_KINDS:
        raise Refused(errno.EPERM if kind == stat.S_IFDIR else errno.EINVAL)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and not context.is_superuser:
        raise Refused(errno.EPERM)
    mode = kind | request.mode & 0o7777
    rdev = request.rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    return Entry(*_make(context, request.parent, request.name, mode, umask=request.umask, rdev=rdev), made=True)


def symlink(context: Context, request: Symlink) -> Answer:
    """Make a symbolic link."""
    check_target(request.target)
    _refuse_taken(context, request.parent, request.name)
    ino, attr = _make(context, request.parent, request.name, stat.S_IFLNK | 0o777)
    attr.size_bytes = len(request.target)
    context.store(ino, attr)
    context.view.put(target_key(ino), request.target)
    return Entry(ino, attr, made=True)


def check_target(target: bytes) -> None:
    """Raise Refused for what cannot be the target of a symbolic link: ENOENT empty, ENAMETOOLONG, EINVAL with a NUL."""
    if not target:
        raise Refused(errno.ENOENT)
    if len(target) > SYMLINK_BYTES_MAX:
        raise Refused(errno.ENAMETOOLONG)
    if b"\0" in target:
        raise Refused(errno.EINVAL)


def _refuse_dots(name: bytes, number: int) -> None:
    if name in (b".", b".."):
        raise Refused(number)


def _refuse_taken(context: Context, parent: int, name: bytes) -> None:
    """Refuse a name that is taken (EEXIST), even to a caller who may not write the directory: as Linux does."""
    _refuse_dots(name, errno.EEXIST)
    context.searched(parent)
    if context.entry(parent, name) is not None:
        raise Refused(errno.EEXIST)


def _make(
    context: Context,
    parent: int,
    name: bytes,
    mode: int,
    *,
    umask: int = 0,
    rdev: int = 0,
    given: tuple[int, int] = (0, 0),
) -> tuple[int, Attr]:
    """Make an inode and its first name; lists come from the directory. `given` are its number and time, 0 for new."""
    directory = context.directory(parent)
    context.need_addition(parent, directory)
    now_ns = context.now_ns
    if stat.S_ISDIR(mode):
        if directory.nlink >= LINKS_MAX:
            raise Refused(errno.EMLINK)
        directory.nlink += 1
    ino = given[0] or context.view.add(NEXT_INODE, 1)
    attr = new_attr(directory, parent, context.caller, mode, rdev=rdev, now_ns=min(given[1] or now_ns, now_ns))
    if directory.flags & HAS_DEFAULT_ACL and not stat.S_ISLNK(mode):
        _inherit(context, parent, ino, attr)
    elif not stat.S_ISLNK(mode):
        attr.mode &= ~(umask & 0o777)
    context.store(ino, attr)
    context.view.put(entry_key(parent, name), pack_entry(ino, attr.kind))
    context.view.add(INODES, 1)
    directory.size_bytes += 1
    touch(directory, now_ns)
    context.store(parent, directory)
    return ino, attr


def new_attr(directory: Attr, parent: int, caller: Caller, mode: int, *, rdev: int, now_ns: int) -> Attr:
    """Return the attributes of an inode that is made in a directory, from which group and setgid bit may come."""
    gid, is_directory = caller.gid, stat.S_ISDIR(mode)
    if directory.mode & S_ISGID:
        gid = directory.gid
        if is_directory:
            mode |= S_ISGID
        elif mode & 0o2010 == 0o2010 and caller.uid and not caller.belongs_to(gid):
            mode &= ~S_ISGID
    links = 2 if is_directory else 1
    attr = Attr(mode, caller.uid, gid, links, 0, rdev, parent, now_ns, now_ns, now_ns, now_ns)
    attr.storage_class = directory.storage_class
    return attr


def _inherit(context: Context, parent: int, ino: int, attr: Attr) -> None:
    data = context.kept(xattr_key(parent, DEFAULT_NAME), "default access control list of a directory")
    acl, attr.mode = inherited(stored_acl(data), attr.mode)
    if not is_minimal(acl):
        context.view.put(xattr_key(ino, ACCESS_NAME), pack_acl(acl))
        attr.flags |= HAS_ACL | HAS_XATTR
    if attr.is_directory:
        context.view.put(xattr_key(ino, DEFAULT_NAME), data)
        attr.flags |= HAS_DEFAULT_ACL | HAS_XATTR


def link(context: Context, request: Link) -> Answer:
    """Give an inode one more name."""
    attr = context.load(request.ino)
    _refuse_taken(context, request.parent, request.name)
    directory = context.directory(request.parent)
    context.need_addition(request.parent, directory)
    if attr.is_directory:
        raise Refused(errno.EPERM)
    if not attr.nlink:
        raise Refused(errno.ENOENT)
    if attr.nlink >= LINKS_MAX:
        raise Refused(errno.EMLINK)
    add_parent(context, request.ino, attr, request.parent)
    attr.nlink += 1
    attr.ctime_ns = context.now_ns
    context.store(request.ino, attr)
    context.view.put(entry_key(request.parent, request.name), pack_entry(request.ino, attr.kind))
    directory.size_bytes += 1
    touch(directory, context.now_ns)
    context.store(request.parent, directory)
    return Entry(request.ino, attr)


def add_parent(context: Context, ino: int, attr: Attr, parent: int) -> None:
    """Note that one more entry of `parent` names the inode: in its attributes while it is the only one."""
    if attr.parent:
        context.view.put(parent_key(ino, attr.parent), pack_count(1))
        attr.parent = 0
    key = parent_key(ino, parent)
    context.view.put(key, pack_count(unpack_count(context.view.get(key)) + 1))


def drop_parent(context: Context, ino: int, attr: Attr, parent: int) -> None:
    """Note that one entry less of `parent` names the inode."""
    if attr.parent == parent:
        attr.parent = 0
        return
    key = parent_key(ino, parent)
    left = unpack_count(context.kept(key, "count of an inode's names")) - 1
    context.view.put(key, pack_count(left) if left else None)


def unlink(context: Context, request: Unlink) -> Answer:
    """Take a name away; with the last one goes the inode, when nobody has it open."""
    _refuse_dots(request.name, errno.EISDIR)
    directory = context.searched(request.parent)
    found = context.entry(request.parent, request.name)
    if found is None:
        raise Refused(errno.ENOENT)
    attr = context.load(found[0])
    context.need_removal(request.parent, directory, attr)
    if attr.is_directory:
        raise Refused(errno.EISDIR)
    remove_name(context, request.parent, request.name, found[0], attr)
    directory.size_bytes -= 1
    touch(directory, context.now_ns)
    context.store(request.parent, directory)
    return Done()


def remove_name(context: Context, parent: int, name: bytes, ino: int, attr: Attr) -> None:
    """Take away an entry that is no directory's; the inode goes with its last name. The parent is the caller's."""
    context.view.delete(entry_key(parent, name))
    drop_parent(context, ino, attr, parent)
    attr.nlink -= 1
    attr.ctime_ns = context.now_ns
    if attr.nlink:
        context.store(ino, attr)
    else:
        let_go(context, ino, attr)


def let_go(context: Context, ino: int, attr: Attr) -> None:
    """Remove an inode without a name, or keep it as long as somebody has it open."""
    attr.nlink = 0
    if attr.opens:
        context.view.put(orphan_key(ino), b"")
        context.store(ino, attr)
    else:
        dispose(context, ino, attr)


def rmdir(context: Context, request: Rmdir) -> Answer:
    """Remove an empty directory."""
    _refuse_dots(request.name, errno.EINVAL if request.name == b"." else errno.ENOTEMPTY)
    directory = context.searched(request.parent)
    found = context.entry(request.parent, request.name)
    if found is None:
        raise Refused(errno.ENOENT)
    ino = found[0]
    attr = context.load(ino)
    context.need_removal(request.parent, directory, attr)
    if not attr.is_directory:
        raise Refused(errno.ENOTDIR)
    if attr.size_bytes:
        raise Refused(errno.ENOTEMPTY)
    context.need_free(ino, attr)  # its holder may have made files in it that are not known here yet
    remove_directory(context, request.parent, request.name, ino, attr)
    directory.size_bytes -= 1
    directory.nlink -= 1
    touch(directory, context.now_ns)
    context.store(request.parent, directory)
    return Done()


def remove_directory(context: Context, parent: int, name: bytes, ino: int, attr: Attr) -> None:
    """Take away the entry of an empty directory and let it go. The parent is the caller's."""
    context.view.delete(entry_key(parent, name))
    context.view.delete(hold_key(ino))
    attr.flags &= ~NAMES_HELD
    attr.parent = 0
    attr.ctime_ns = context.now_ns
    let_go(context, ino, attr)
