"""Content: who has a file open, and which slices show in it. No byte of data passes here, only references to slices."""

import errno
from collections.abc import Iterable, Sequence
from typing import Final

from stoker.fs.meta.answers import Answer, Done, Entry, Extents, Number, Shown
from stoker.fs.meta.calls import (
    KEEP_SIZE,
    PUNCH_HOLE,
    READ,
    WRITE,
    ZERO_RANGE,
    Close,
    Compact,
    CopyRange,
    Fallocate,
    Open,
    ReadExtents,
    Reclaim,
    TakeSlices,
    Write,
)
from stoker.fs.meta.context import MAY_READ, MAY_WRITE, Context, drop_privileges, touch
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import (
    BYTES,
    INODES,
    NEXT_SLICE,
    attr_key,
    chunk_key,
    chunk_rows,
    doomed_key,
    index_in,
    inode_rows,
    locks_key,
    number_in,
    open_key,
    orphan_key,
    session_open_key,
    taken_key,
)
from stoker.fs.meta.locking import of_others, pack_locks, unpack_locks
from stoker.fs.meta.records import (
    FILE_BYTES_MAX,
    HAS_DATA,
    HAS_XATTR,
    Attr,
    pack_opens,
    pack_taken,
    unpack_opens,
)
from stoker.fs.meta.references import References, check_slices
from stoker.fs.meta.slices import (
    CHUNK_BYTES,
    Extent,
    Slice,
    check_extents,
    covered,
    laid,
    moved,
    pack_extents,
    same_ends,
    spread,
    unpack_extents,
    within,
    without,
)

_DISPOSE_ROWS: Final = 256
_COPY_BYTES_MAX: Final = 256 * CHUNK_BYTES
_TAKE_MAX: Final = 1 << 20
_EXTENTS_MAX: Final = 65_536
"""Of a chunk: one in more pieces takes no more until some are written over."""


# -- opening and closing


def open_file(context: Context, request: Open) -> Answer:
    """Open a file, a fifo or a directory in the caller's session.

    One without a name is gone (ENOENT) for who does not have it open already: he found it by a name that was taken
    away meanwhile, and what he would write into it nobody could find.
    """
    ino = request.ino
    attr = context.load(ino)
    if not attr.nlink and context.view.get(open_key(ino, context.session)) is None:
        raise Refused(errno.ENOENT)
    if not request.access or request.access & ~(READ | WRITE):
        raise Refused(errno.EINVAL)
    if attr.is_symlink:
        raise Refused(errno.ELOOP)
    if attr.is_directory and request.access & WRITE:
        raise Refused(errno.EISDIR)
    wanted = (MAY_READ if request.access & READ else 0) | (MAY_WRITE if request.access & WRITE else 0)
    context.need(ino, attr, wanted | (MAY_WRITE if request.truncate else 0))
    if request.truncate and attr.is_file:
        resize(context, ino, attr, 0)
    return Entry(ino, opened(context, ino, attr, request.access))


def opened(context: Context, ino: int, attr: Attr, access: int) -> Attr:
    """Note that the caller's session has an inode open once more, and store its attributes."""
    context.live_session()
    key = open_key(ino, context.session)
    data = context.view.get(key)
    readers, writers = unpack_opens(data) if data is not None else (0, 0)
    if data is None:
        attr.opens += 1
        context.view.put(session_open_key(context.session, ino), b"")
    context.view.put(key, pack_opens(readers + bool(access & READ), writers + bool(access & WRITE)))
    context.store(ino, attr)
    return attr


def close_file(context: Context, request: Close) -> Answer:
    """Close what was opened with the same access; the last to close an inode without a name removes it."""
    ino = request.ino
    context.live_session()
    readers, writers = _opens(context, ino)
    readers -= bool(request.access & READ)
    writers -= bool(request.access & WRITE)
    if not request.access or request.access & ~(READ | WRITE) or min(readers, writers) < 0:
        raise Refused(errno.EBADF)
    if request.owner:
        drop_locks(context, ino, context.session, request.owner)
    if readers or writers:
        context.view.put(open_key(ino, context.session), pack_opens(readers, writers))
    else:
        closed(context, ino, context.session)
    return Done()


def drop_locks(context: Context, ino: int, session: int, owner: int | None = None) -> None:
    """Take the locks of a session on an inode, or those of one owner in it."""
    locks = unpack_locks(context.view.get(locks_key(ino)))
    left = of_others(locks, session, owner)
    if len(left) != len(locks):
        context.view.put(locks_key(ino), pack_locks(left))


def closed(context: Context, ino: int, session: int) -> None:
    """Note that a session no longer has an inode open; with that go its locks."""
    drop_locks(context, ino, session)
    context.view.delete(open_key(ino, session))
    context.view.delete(session_open_key(session, ino))
    attr = context.load(ino)
    attr.opens -= 1
    if attr.opens or attr.nlink:
        context.store(ino, attr)
    else:
        context.view.delete(orphan_key(ino))
        dispose(context, ino, attr)


def _opens(context: Context, ino: int) -> tuple[int, int]:
    data = context.view.get(open_key(ino, context.session))
    if data is None:
        raise Refused(errno.EBADF)
    return unpack_opens(data)


def need_reader(context: Context, ino: int) -> None:
    """Raise Refused (EBADF) unless the caller's session has the inode open to read."""
    if not _opens(context, ino)[0]:
        raise Refused(errno.EBADF)


def need_writer(context: Context, ino: int) -> None:
    """Raise Refused (EBADF) unless the caller's session has the inode open to write."""
    if not _opens(context, ino)[1]:
        raise Refused(errno.EBADF)


# -- what shows


def chunk_extents(context: Context, ino: int, index: int) -> list[Extent]:
    """Return what shows in a chunk of an inode."""
    return unpack_extents(context.view.get(chunk_key(ino, index)))


def replace_extents(
    context: Context, references: References, ino: int, index: int, old: Sequence[Extent], new: Sequence[Extent]
) -> None:  # fmt: skip
    """Show other extents in a chunk; the caller settles the references."""
    if len(new) > max(_EXTENTS_MAX, len(old)):
        raise Refused(errno.ENOSPC)
    head, tail = same_ends(old, new)
    references.count(index, old[head : len(old) - tail], -1)
    references.count(index, new[head : len(new) - tail], 1)
    context.view.put(chunk_key(ino, index), pack_extents(new) if new else None)


def _cut(context: Context, references: References, ino: int, offset_bytes: int, length_bytes: int) -> None:
    """Make a hole. Chunks that have no row are passed over by their keys, not one by one."""
    first, last = offset_bytes // CHUNK_BYTES, (offset_bytes + length_bytes - 1) // CHUNK_BYTES
    if last - first < 4:
        rows = [(index, chunk_extents(context, ino, index)) for index in range(first, last + 1)]
    else:
        rows = [(index, unpack_extents(value)) for index, value in _chunks(context, ino, first, last)]
    end_bytes = offset_bytes + length_bytes
    for index, extents in rows:
        start = max(offset_bytes - index * CHUNK_BYTES, 0)
        kept = without(extents, start, min(end_bytes - index * CHUNK_BYTES, CHUNK_BYTES))
        if kept != extents:
            replace_extents(context, references, ino, index, extents, kept)


def _chunks(context: Context, ino: int, first: int, last: int) -> list[tuple[int, bytes]]:
    """Return the rows of the chunks `first` to `last`, in order; few of those behind are read."""
    after = chunk_key(ino, first - 1) if first else b""
    found = context.view.scan(chunk_rows(ino), after, last - first + 1)
    return [(index_in(key), value) for key, value in found if index_in(key) <= last]


def resize(context: Context, ino: int, attr: Attr, size_bytes: int) -> None:
    """Give a file another size: what is cut off is freed, what comes reads as zeros. The caller stores `attr`."""
    if size_bytes < attr.size_bytes and attr.flags & HAS_DATA:
        references = References()
        _cut(context, references, ino, size_bytes, attr.size_bytes - size_bytes)
        references.settle(context, ino)
    _set_size(context, attr, size_bytes)
    _written(context, attr)


def _set_size(context: Context, attr: Attr, size_bytes: int) -> None:
    if size_bytes != attr.size_bytes:
        context.view.add(BYTES, size_bytes - attr.size_bytes)
        attr.size_bytes = size_bytes


def _written(context: Context, attr: Attr, written_ns: int = 0) -> None:
    """Note that data has changed, now or before: times, and the bits that a writer who is no superuser takes away."""
    before_ns = attr.ctime_ns
    touch(attr, written_ns if 0 < written_ns < context.now_ns else context.now_ns)
    attr.ctime_ns = max(attr.ctime_ns, before_ns)
    if not context.is_superuser:
        drop_privileges(attr)


# -- reading and writing


def take_slices(context: Context, request: TakeSlices) -> Answer:
    """Take numbers for slices."""
    if not 0 < request.count <= _TAKE_MAX:
        raise Refused(errno.EINVAL)
    first = context.view.add(NEXT_SLICE, request.count)
    row = pack_taken(first, context.session, context.now_ns)
    context.view.put(taken_key(first + request.count - 1), row)
    return Number(first)


def _writable(context: Context, ino: int) -> Attr:
    """Return the attributes of a regular file that the caller's session has open to write."""
    context.live_session()
    need_writer(context, ino)
    attr = context.load(ino)
    if not attr.is_file:
        raise Refused(errno.EINVAL)
    return attr


def write(context: Context, request: Write) -> Answer:
    """Show slices in a file; return where. With `append` that is the end as it is in this transaction."""
    ino = request.ino
    attr = _writable(context, ino)
    _need_token(context, ino, request.token)
    start_bytes = attr.size_bytes if request.append else request.offset_bytes
    show_slices(context, ino, attr, request.slices, start_bytes, request.parts)
    _written(context, attr, request.written_ns)
    context.store(ino, attr)
    return Number(start_bytes)


def show_slices(
    context: Context,
    ino: int,
    attr: Attr,
    slices: Sequence[Slice],
    start_bytes: int,
    parts: Sequence[tuple[int, int]] = (),
) -> None:
    """Show slices, or parts of them, one after the other. The caller notes the time and stores `attr`."""
    check_slices(context, slices, parts)
    shown = parts or [(0, data.size_bytes) for data in slices]
    end_bytes = start_bytes + sum(length for _, length in shown)
    if start_bytes < 0:
        raise Refused(errno.EINVAL)
    if end_bytes > FILE_BYTES_MAX:
        raise Refused(errno.EFBIG)
    new: list[tuple[int, Extent]] = []
    place = start_bytes
    for data, (offset, length) in zip(slices, shown, strict=True):
        new += spread(data, place, offset, length)
        place += length
    references = References(context.session if parts else 0)
    _lay(context, references, ino, new)
    references.settle(context, ino)
    attr.flags |= HAS_DATA
    _set_size(context, attr, max(attr.size_bytes, end_bytes))


def _lay(context: Context, references: References, ino: int, new: Iterable[tuple[int, Extent]]) -> None:
    by_chunk: dict[int, list[Extent]] = {}
    for index, extent in new:
        by_chunk.setdefault(index, []).append(extent)
    for index, extents in by_chunk.items():
        old = chunk_extents(context, ino, index)
        replace_extents(context, references, ino, index, old, laid(old, extents))


def compact(context: Context, request: Compact) -> Answer:
    """Show the bytes of a range in fewer slices. Refuses (EAGAIN) when the data has changed meanwhile."""
    ino, start, length = request.ino, request.offset_bytes, request.length_bytes
    attr = _writable(context, ino)
    if attr.version != request.version:
        raise Refused(errno.EAGAIN)
    check_slices(context, [data for _, data in request.pieces])
    if start < 0 or length <= 0 or start // CHUNK_BYTES != (start + length - 1) // CHUNK_BYTES:
        raise Refused(errno.EINVAL)
    new = [piece for offset, data in request.pieces for piece in spread(data, offset)]
    before = [extent for _, extent in _shown(context, ino, start, length)]
    after = sorted(extent for index, extent in new if index == start // CHUNK_BYTES)
    if len(after) != len(new) or check_extents(after) or covered(after) != covered(before):
        raise Refused(errno.EINVAL)
    references = References()
    _lay(context, references, ino, new)
    references.settle(context, ino)
    return Done()


def _need_token(context: Context, ino: int, token: int) -> None:
    """Refuse (ESTALE) who shows the token of a lock that his session no longer has."""
    if token and not any(
        held.token == token and held.session == context.session
        for held in unpack_locks(context.view.get(locks_key(ino)))
    ):
        raise Refused(errno.ESTALE)


def read_extents(context: Context, request: ReadExtents) -> Answer:
    """Return what shows in a range, as far as the file goes."""
    ino = request.ino
    need_reader(context, ino)
    attr = context.load(ino)
    if attr.is_directory:
        raise Refused(errno.EISDIR)
    if request.offset_bytes < 0 or request.length_bytes < 0:
        raise Refused(errno.EINVAL)
    length_bytes = max(min(request.length_bytes, attr.size_bytes - request.offset_bytes), 0)
    return Extents(shown_in(context, ino, attr, request.offset_bytes, length_bytes), attr.size_bytes, attr.version)


def shown_in(context: Context, ino: int, attr: Attr, offset_bytes: int, length_bytes: int) -> tuple[Shown, ...]:
    """Return what shows in a range of a file that lies before its end."""
    shown = _shown(context, ino, offset_bytes, length_bytes) if attr.flags & HAS_DATA else []
    return tuple(Shown(index * CHUNK_BYTES + extent.position, extent) for index, extent in shown)


def _shown(context: Context, ino: int, offset_bytes: int, length_bytes: int) -> list[tuple[int, Extent]]:
    if not length_bytes:
        return []
    first, last = offset_bytes // CHUNK_BYTES, (offset_bytes + length_bytes - 1) // CHUNK_BYTES
    found: list[tuple[int, Extent]] = []
    for index, value in _chunks(context, ino, first, last):
        start = max(offset_bytes - index * CHUNK_BYTES, 0)
        stop = min(offset_bytes + length_bytes - index * CHUNK_BYTES, CHUNK_BYTES)
        found += [(index, extent) for extent in within(unpack_extents(value), start, stop)]
    return found


def fallocate(context: Context, request: Fallocate) -> Answer:
    """Lengthen a file or make a hole. No space is set aside: slices take it when they are written."""
    attr = _writable(context, request.ino)
    mode, end_bytes = request.mode, request.offset_bytes + request.length_bytes
    if mode not in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
        raise Refused(errno.EOPNOTSUPP)
    if request.offset_bytes < 0 or request.length_bytes <= 0:
        raise Refused(errno.EINVAL)
    if end_bytes > FILE_BYTES_MAX:
        raise Refused(errno.EFBIG)
    if mode & (PUNCH_HOLE | ZERO_RANGE) and attr.flags & HAS_DATA:
        references = References()
        _cut(context, references, request.ino, request.offset_bytes, request.length_bytes)
        references.settle(context, request.ino)
    if not mode & KEEP_SIZE:
        _set_size(context, attr, max(attr.size_bytes, end_bytes))
    _written(context, attr)
    context.store(request.ino, attr)
    return Done()


def copy_range(context: Context, request: CopyRange) -> Answer:
    """Show a range of one file in another by reference; return how many bytes, which the source's end may bound."""
    source = context.load(request.source)
    need_reader(context, request.source)
    target = _writable(context, request.target)
    if not source.is_file or min(request.source_offset_bytes, request.target_offset_bytes, request.length_bytes) < 0:
        raise Refused(errno.EINVAL)
    left_bytes = source.size_bytes - request.source_offset_bytes
    length_bytes = max(min(request.length_bytes, left_bytes, _COPY_BYTES_MAX), 0)
    apart_bytes = request.target_offset_bytes - request.source_offset_bytes
    if request.source == request.target and abs(apart_bytes) < length_bytes:
        raise Refused(errno.EINVAL)
    if request.target_offset_bytes + length_bytes > FILE_BYTES_MAX:
        raise Refused(errno.EFBIG)
    if not length_bytes:
        return Number(0)
    new = [
        piece
        for index, extent in _shown(context, request.source, request.source_offset_bytes, length_bytes)
        for piece in moved(extent, index, apart_bytes)
    ]
    references = References()
    _cut(context, references, request.target, request.target_offset_bytes, length_bytes)
    _lay(context, references, request.target, new)
    references.settle(context, request.target)
    target.flags |= HAS_DATA if new else 0
    _set_size(context, target, max(target.size_bytes, request.target_offset_bytes + length_bytes))
    _written(context, target)
    context.store(request.target, target)
    return Number(length_bytes)


# -- what is gone


def dispose(context: Context, ino: int, attr: Attr) -> None:
    """Remove an inode that has no name and that nobody has open. What is left of a large file `Reclaim` frees."""
    view = context.view
    view.delete(attr_key(ino))
    view.add(INODES, -1)
    if attr.is_file and attr.size_bytes:
        view.add(BYTES, -attr.size_bytes)
    plain = not attr.flags & (HAS_DATA | HAS_XATTR) and not attr.is_symlink
    if not plain and _free_rows(context, ino, _DISPOSE_ROWS):
        view.put(doomed_key(ino), b"")


def _free_rows(context: Context, ino: int, limit: int) -> bool:
    """Remove rows of an inode that is gone, chunks with their references; tell whether some are left."""
    rows = context.view.scan(inode_rows(ino), limit=limit + 1)
    references = References()
    for key, value in rows[:limit]:
        if key[9:10] == b"C":
            references.count(index_in(key), unpack_extents(value), -1)
        context.view.delete(key)
    references.settle(context, ino)
    return len(rows) > limit


def reclaim(context: Context, request: Reclaim) -> Answer:
    """Free chunks of files that are gone; `more` when some are left."""
    limit = max(request.limit, 1)
    doomed = context.view.scan(b"d", limit=2)
    if doomed:
        ino = number_in(doomed[0][0])
        if _free_rows(context, ino, limit):
            return Done(more=True)
        context.view.delete(doomed_key(ino))
    return Done(more=len(doomed) > 1)
