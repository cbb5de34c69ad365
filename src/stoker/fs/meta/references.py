"""References to slices: how many extents show each, and which slices may be shown at all.

A slice is shown whole by one request, and never again: whoever asks for it once more is mistaken. A pack holds the
bytes of several files: who stores it shows it by parts, each by a request of its own. Which session that is stands
with the count, so that nobody else can come to the bytes of a pack by its number.
"""

import errno
from collections.abc import Iterable, Sequence

from stoker.core.errors import CorruptError
from stoker.fs.meta.classes import need_class
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import NEXT_SLICE, freed_key, slice_key
from stoker.fs.meta.packing import note_shown
from stoker.fs.meta.records import pack_freed, pack_references, packer_of, unpack_freed, unpack_references
from stoker.fs.meta.slices import CHUNK_BYTES, Extent, Slice


class References:
    """How many extents more or fewer refer to each slice; settled once, when a request has changed all its chunks.

    `packer` is the session that shows parts of packs, 0 where slices are shown whole.
    """

    def __init__(self, packer: int = 0) -> None:
        self._packer = packer
        self._changes: dict[int, int] = {}
        self._slices: dict[int, Slice] = {}
        self._shown: dict[int, dict[int, int]] = {}  # of each slice, how many bytes more or fewer each chunk shows

    def count(self, index: int, extents: Iterable[Extent], difference: int) -> None:
        """Note that extents of chunk `index` come to be, or go."""
        for extent in extents:
            self._changes[extent.id] = self._changes.get(extent.id, 0) + difference
            self._slices[extent.id] = extent.slice
            shown = self._shown.setdefault(extent.id, {})
            shown[index] = shown.get(index, 0) + difference * extent.length

    def settle(self, context: Context, ino: int) -> None:
        """Write the counts; what nothing refers to any more is freed, by this inode."""
        for slice_id, difference in self._changes.items():
            shown = self._shown[slice_id]
            if not difference and not any(shown.values()):
                continue
            data = context.view.get(slice_key(slice_id))
            packer = self._packer if data is None else packer_of(data)
            if difference:
                self._count_anew(context, slice_id, data, difference, packer, ino)
            if packer:
                note_shown(context, self._slices[slice_id], ino, shown, is_new=data is None)

    def _count_anew(
        self, context: Context, slice_id: int, data: bytes | None, difference: int, packer: int, ino: int
    ) -> None:  # fmt: skip
        view = context.view
        count = difference + (unpack_references(slice_id, data)[1] if data is not None else 0)
        if count < 0:
            raise CorruptError("a slice is let go more often than it is referred to", where=f"slice {slice_id}")
        if count:
            if data is None and packer:
                view.delete(freed_key(slice_id))  # see `check_slices`
            view.put(slice_key(slice_id), pack_references(self._slices[slice_id], count, packer))
        else:
            view.delete(slice_key(slice_id))
            view.put(freed_key(slice_id), pack_freed(self._slices[slice_id], ino, context.now_ns))


def check_slices(context: Context, slices: Sequence[Slice], parts: Sequence[tuple[int, int]] = ()) -> None:
    """Refuse slices of no bytes, of more than a chunk, of numbers nobody took, or that were shown before.

    Shown by parts, a slice may have been shown before by parts, in this session. Where a file that showed the only part
    so far was written over in this very transaction, the pack was freed in it: nobody can have seen that.
    """
    taken = context.view.count(NEXT_SLICE)
    numbers = [data.id for data in slices]
    twice = not parts and len(set(numbers)) != len(numbers)
    if not numbers or twice or (parts and len(parts) != len(slices)):
        raise Refused(errno.EINVAL)
    for data in slices:
        if not (0 < data.size_bytes <= CHUNK_BYTES and 0 < data.id < taken and 0 <= data.generation < 2**32):
            raise Refused(errno.EINVAL)
        _check_unused(context, data, by_parts=bool(parts))
    for data, (offset, length) in zip(slices, parts, strict=False):
        if offset < 0 or length <= 0 or offset + length > data.size_bytes:
            raise Refused(errno.EINVAL)
    for number in {data.storage_class for data in slices}:
        need_class(context, number)


def _check_unused(context: Context, data: Slice, *, by_parts: bool) -> None:
    row = context.view.get(slice_key(data.id))
    if row is not None:
        own = by_parts and packer_of(row) == context.session and unpack_references(data.id, row)[0] == data
        if not own:
            raise Refused(errno.EAGAIN if by_parts else errno.EINVAL)
        return
    freed = context.view.get(freed_key(data.id))
    if freed is not None:
        was, _, time_ns = unpack_freed(data.id, freed)
        if not by_parts or was != data or time_ns != context.now_ns:
            raise Refused(errno.EAGAIN if by_parts else errno.EINVAL)
