"""Reading directories and symbolic links."""

import errno

from stoker.fs.meta.answers import Answer, Content, Listed, Listing
from stoker.fs.meta.calls import ReadDir, ReadLink
from stoker.fs.meta.context import MAY_READ, MAY_SEARCH, Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import entry_key, name_in, target_key
from stoker.fs.meta.records import unpack_entry

LISTING_MAX = 10_000


def readdir(context: Context, request: ReadDir) -> Answer:
    """Return entries behind a name. Their attributes are told to who may search the directory."""
    directory = context.directory(request.ino)
    context.need(request.ino, directory, MAY_READ | (MAY_SEARCH if request.plus else 0))
    limit = min(max(request.limit, 1), LISTING_MAX)
    prefix = entry_key(request.ino)
    after = prefix + request.after if request.after else b""
    rows = context.view.scan(prefix, after, limit + 1)
    entries = []
    for key, value in rows[:limit]:
        ino, kind = unpack_entry(value)
        entries.append(Listed(name_in(key), ino, kind, context.load(ino) if request.plus else None))
    return Listing(tuple(entries), len(rows) > limit)


def readlink(context: Context, request: ReadLink) -> Content:
    """Return the target of a symbolic link."""
    if not context.load(request.ino).is_symlink:
        raise Refused(errno.EINVAL)
    return Content(context.kept(target_key(request.ino), "target of a symbolic link"))
