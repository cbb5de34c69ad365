"""Renaming, with Linux's flags: replace, refuse to replace, exchange. One transaction reads both parents and all above.

A directory may not move below itself. Who asks sees its ancestors in the transaction, so two renames at once cannot
close a loop: the one that commits second has read what the first has written.
"""

import errno

from stoker.core.errors import CorruptError
from stoker.fs.meta.answers import Answer, Done
from stoker.fs.meta.calls import EXCHANGE, NOREPLACE, Rename
from stoker.fs.meta.context import MAY_WRITE, Context, touch
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import ROOT, entry_key
from stoker.fs.meta.naming import add_parent, drop_parent, remove_directory, remove_name
from stoker.fs.meta.records import LINKS_MAX, Attr, pack_entry

Found = tuple[int, Attr]


def rename(context: Context, request: Rename) -> Answer:
    """Move a name. Raises Refused as renameat2 fails."""
    flags = request.flags
    check_flags(flags)
    _refuse_dots(request)
    source_dir = context.searched(request.parent)
    target_dir = context.searched(request.new_parent)
    source = _found(context, request.parent, request.name)
    if source is None:
        raise Refused(errno.ENOENT)
    target = _found(context, request.new_parent, request.new_name)
    _check_names(context, request, source, target)
    if target is not None and target[0] == source[0]:
        return Done()
    _check_permissions(context, request, source_dir, target_dir, source, target)
    _check_target(context, request, target_dir, source, target)
    if flags & EXCHANGE:
        assert target is not None
        _exchange(context, request, source, target)
    else:
        _move(context, request, source, target)
    return Done()


def check_flags(flags: int) -> None:
    """Raise Refused (EINVAL) for flags that are unknown or exclude each other."""
    if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
        raise Refused(errno.EINVAL)


def _refuse_dots(request: Rename) -> None:
    """Refuse `.` and `..` before anything is looked up, in Linux's order: the old name, then the new one."""
    dots = (b".", b"..")
    if request.name in dots:
        raise Refused(errno.EBUSY)
    if request.new_name in dots:
        raise Refused(errno.EEXIST if request.flags & NOREPLACE else errno.EBUSY)


def _found(context: Context, parent: int, name: bytes) -> Found | None:
    entry = context.entry(parent, name)
    return None if entry is None else (entry[0], context.load(entry[0]))


def _check_names(context: Context, request: Rename, source: Found, target: Found | None) -> None:
    """Refuse what the names alone forbid: a taken name, none to exchange with, a directory below itself."""
    if request.flags & NOREPLACE and target is not None:
        raise Refused(errno.EEXIST)
    if request.flags & EXCHANGE and target is None:
        raise Refused(errno.ENOENT)
    if request.parent == request.new_parent:
        return
    if source[1].is_directory and _lies_below(context, request.new_parent, source[0]):
        raise Refused(errno.EINVAL)
    if target is not None and target[1].is_directory and _lies_below(context, request.parent, target[0]):
        raise Refused(errno.EINVAL if request.flags & EXCHANGE else errno.ENOTEMPTY)


def _lies_below(context: Context, ino: int, above: int) -> bool:
    """Tell whether `above` is `ino` or one of its ancestors; reads them all up to the root."""
    passed = set()
    while ino not in (above, ROOT):
        if ino in passed:
            raise CorruptError("directories lie below each other", where=f"inode {ino}", remedy="run `stoker fs fsck`")
        passed.add(ino)
        parent = context.load(ino).parent
        if not parent:  # a directory that was removed while open
            return False
        ino = parent
    return ino == above


def _check_permissions(
    context: Context, request: Rename, source_dir: Attr, target_dir: Attr, source: Found, target: Found | None
) -> None:  # fmt: skip
    context.need_removal(request.parent, source_dir, source[1])
    if target is None:
        context.need_addition(request.new_parent, target_dir)
    else:
        context.need_removal(request.new_parent, target_dir, target[1])
        if not request.flags & EXCHANGE and source[1].is_directory != target[1].is_directory:
            raise Refused(errno.ENOTDIR if source[1].is_directory else errno.EISDIR)
    if request.parent == request.new_parent:
        return
    # The directory's own `..` changes, which needs the right to write it.
    if source[1].is_directory:
        context.need(*source, MAY_WRITE)
    if request.flags & EXCHANGE and target is not None and target[1].is_directory:
        context.need(*target, MAY_WRITE)


def _check_target(context: Context, request: Rename, target_dir: Attr, source: Found, target: Found | None) -> None:
    if request.flags & EXCHANGE:
        return
    if target is not None and target[1].is_directory:
        if target[1].size_bytes:
            raise Refused(errno.ENOTEMPTY)
        context.need_free(*target)
    grows = source[1].is_directory and request.parent != request.new_parent and target is None
    if grows and target_dir.nlink >= LINKS_MAX:
        raise Refused(errno.EMLINK)


def _move(context: Context, request: Rename, source: Found, target: Found | None) -> None:
    ino, attr = source
    now_ns = context.now_ns
    if target is not None:
        if target[1].is_directory:
            remove_directory(context, request.new_parent, request.new_name, *target)
        else:
            remove_name(context, request.new_parent, request.new_name, *target)
    context.view.delete(entry_key(request.parent, request.name))
    context.view.put(entry_key(request.new_parent, request.new_name), pack_entry(ino, attr.kind))
    _change_parent(context, ino, attr, request.parent, request.new_parent)
    attr.ctime_ns = now_ns
    context.store(ino, attr)
    gone_directories = int(target is not None and target[1].is_directory)
    _count(context, request.parent, -1, -int(attr.is_directory))
    _count(context, request.new_parent, int(target is None), int(attr.is_directory) - gone_directories)


def _exchange(context: Context, request: Rename, source: Found, target: Found) -> None:
    for (ino, attr), parent, other_parent, other_name in (
        (source, request.parent, request.new_parent, request.new_name),
        (target, request.new_parent, request.parent, request.name),
    ):
        context.view.put(entry_key(other_parent, other_name), pack_entry(ino, attr.kind))
        _change_parent(context, ino, attr, parent, other_parent)
        attr.ctime_ns = context.now_ns
        context.store(ino, attr)
    difference = int(target[1].is_directory) - int(source[1].is_directory)
    _count(context, request.parent, 0, difference)
    _count(context, request.new_parent, 0, -difference)


def _change_parent(context: Context, ino: int, attr: Attr, parent: int, new_parent: int) -> None:
    if parent == new_parent:
        return
    if attr.parent:
        attr.parent = new_parent
    else:
        drop_parent(context, ino, attr, parent)
        add_parent(context, ino, attr, new_parent)


def _count(context: Context, parent: int, entries: int, directories: int) -> None:
    """Note in a directory that it has other entries now: how many more, and how many of them are directories."""
    directory = context.load(parent)
    directory.size_bytes += entries
    directory.nlink += directories
    touch(directory, context.now_ns)
    context.store(parent, directory)
