"""Requests about storage classes: they are made, listed, and given to directories and files."""

import errno
from typing import Final

from stoker.core.errors import UsageError
from stoker.fs.meta.answers import Answer, Classes, Entry, Number
from stoker.fs.meta.calls import ListClasses, MakeClass, SetClass
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import CLASSES, class_key
from stoker.fs.meta.storage_class import StorageClass, check_class, pack_class, unpack_class

_CLASSES_MAX: Final = 1024


def made_classes(context: Context) -> tuple[StorageClass, ...]:
    """Return all classes of the volume, by their numbers."""
    return tuple(unpack_class(value) for _, value in context.view.scan(CLASSES, limit=_CLASSES_MAX))


def need_class(context: Context, number: int) -> None:
    """Raise Refused (EINVAL) unless there is a class of this number."""
    if not 0 <= number < _CLASSES_MAX or context.view.get(class_key(number)) is None:
        raise Refused(errno.EINVAL)


def make_class(context: Context, request: MakeClass) -> Answer:
    """Make a class under the next number. Refuses a name that is taken (EEXIST), and all but the superuser (EPERM)."""
    if not context.is_superuser:
        raise Refused(errno.EPERM)
    try:
        check_class(request.wanted)
    except UsageError:
        raise Refused(errno.EINVAL) from None
    there = made_classes(context)
    if any(one.name == request.wanted.name for one in there):
        raise Refused(errno.EEXIST)
    if len(there) >= _CLASSES_MAX:
        raise Refused(errno.ENOSPC)
    wanted = request.wanted
    made = StorageClass(
        len(there), wanted.name, wanted.k, wanted.m, wanted.cell_bytes,
        wanted.domain, wanted.small_bytes, wanted.small_copies, wanted.acknowledge,
    )  # fmt: skip
    context.view.put(class_key(made.id), pack_class(made))
    return Number(made.id)


def list_classes(context: Context, _: ListClasses) -> Answer:
    """Return all classes of the volume."""
    return Classes(made_classes(context))


def set_class(context: Context, request: SetClass) -> Answer:
    """Give a file or directory another class, which is its owner's to do. What is stored already stays as it is."""
    attr = context.load(request.ino)
    context.need_owner(attr)
    if not (attr.is_directory or attr.is_file):
        raise Refused(errno.EINVAL)
    need_class(context, request.storage_class)
    attr.storage_class = request.storage_class
    attr.ctime_ns = context.now_ns
    context.store(request.ino, attr)
    return Entry(request.ino, attr)
