"""Whole files in one step: a small file costs one transaction to write and no opening to read."""

import errno

from stoker.fs.meta.answers import Answer, Entry, Peeked
from stoker.fs.meta.calls import Create, Lookup, Peek, Put
from stoker.fs.meta.content import resize, show_slices, shown_in
from stoker.fs.meta.context import MAY_READ, MAY_WRITE, Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.naming import create, lookup


def put(context: Context, request: Put) -> Answer:
    """Make a file of stored slices, or replace the content of the one that is there."""
    context.live_session()
    made = create(context, Create(request.parent, request.name, request.mode, request.umask, request.exclusive))
    assert isinstance(made, Entry)
    ino, attr = made.ino, made.attr
    if not made.made:
        if not attr.is_file:
            raise Refused(errno.ELOOP if attr.is_symlink else errno.EINVAL)
        context.need(ino, attr, MAY_WRITE)
        resize(context, ino, attr, 0)
    if request.fitting and any(data.storage_class != attr.storage_class for data in request.slices):
        raise Refused(errno.EAGAIN)
    if request.slices:
        show_slices(context, ino, attr, request.slices, 0, request.parts)
    context.store(ino, attr)
    return Entry(ino, attr, made.made)


def peek(context: Context, request: Peek) -> Answer:
    """Return an inode with what shows in its beginning, to who may read it."""
    if request.limit_bytes < 0:
        raise Refused(errno.EINVAL)
    if request.name:
        found = lookup(context, Lookup(request.ino, request.name))
        assert isinstance(found, Entry)
    else:
        found = Entry(request.ino, context.load(request.ino))
    ino, attr = found.ino, found.attr
    if not attr.is_file:
        return Peeked(ino, attr, ())
    context.need(ino, attr, MAY_READ)
    length_bytes = min(request.limit_bytes, attr.size_bytes)
    return Peeked(ino, attr, shown_in(context, ino, attr, 0, length_bytes))
