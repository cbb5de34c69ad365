"""Packs of which little shows: what is left of them is shown from a fresh pack, so that they are freed.

A slice never changes, so what an extent shows may be taken from a copy of those bytes at any time, whatever else has
happened to the file meanwhile: only extents that show what was copied are swapped, and no other is touched.
"""

import errno
from collections.abc import Sequence
from typing import Final

from stoker.fs.meta.answers import Answer, Holder, Number, SparsePack, SparsePacks
from stoker.fs.meta.content import chunk_extents, replace_extents
from stoker.fs.meta.context import Context
from stoker.fs.meta.faults import Refused
from stoker.fs.meta.keys import holder_in, holder_rows, number_in, pack_key, slice_key, sparse_key
from stoker.fs.meta.pack_calls import ListSparse, Moved, Repack
from stoker.fs.meta.records import unpack_count, unpack_references
from stoker.fs.meta.references import References, check_slices
from stoker.fs.meta.slices import Extent, Slice

_PACKS_MAX: Final = 256
_HOLDERS_MAX: Final = 4096


def list_sparse(context: Context, request: ListSparse) -> Answer:
    """Return packs of which little shows, and where the rest of each shows. Refuses all but the superuser (EPERM)."""
    if not context.is_superuser:
        raise Refused(errno.EPERM)
    after = sparse_key(request.after) if request.after > 0 else b""
    rows = context.view.scan(b"q", after, min(max(request.limit, 1), _PACKS_MAX))
    return SparsePacks(tuple(_sparse(context, number_in(key)) for key, _ in rows))


def _sparse(context: Context, slice_id: int) -> SparsePack:
    row = context.view.get(slice_key(slice_id))
    if row is None:  # freed by software that knows nothing of the list
        return SparsePack(Slice(slice_id, 0, 0), 0, ())
    data, _ = unpack_references(slice_id, row)
    rows = context.view.scan(holder_rows(slice_id), limit=_HOLDERS_MAX)
    holders = tuple(_holder(context, slice_id, *holder_in(key)) for key, _ in rows)
    return SparsePack(data, unpack_count(context.view.get(pack_key(slice_id))), holders)


def _holder(context: Context, slice_id: int, ino: int, index: int) -> Holder:
    shown = [one for one in chunk_extents(context, ino, index) if one.id == slice_id]
    return Holder(ino, index, tuple((one.offset, one.length) for one in shown))


def repack(context: Context, request: Repack) -> Answer:
    """Show copied bytes from their new place; return in how many extents. Refuses (EAGAIN) where none shows them."""
    if not context.is_superuser:
        raise Refused(errno.EPERM)
    context.live_session()
    data = request.slice
    check_slices(context, [data])
    _check_moved(data, request.moved)
    swapped = 0
    for ino, index in sorted(set(request.holders)):
        old = chunk_extents(context, ino, index)
        new = [_swapped(extent, data, request.moved) for extent in old]
        changed = sum(one is not other for one, other in zip(old, new, strict=True))
        if changed:
            references = References(context.session)
            replace_extents(context, references, ino, index, old, new)
            references.settle(context, ino)
            swapped += changed
    if not swapped:
        raise Refused(errno.EAGAIN)
    return Number(swapped)


def _check_moved(data: Slice, moved: Sequence[Moved]) -> None:
    for one in moved:
        low = min(one.offset, one.new_offset)
        if one.id == data.id or low < 0 or one.length <= 0 or one.new_offset + one.length > data.size_bytes:
            raise Refused(errno.EINVAL)


def _swapped(extent: Extent, data: Slice, moved: Sequence[Moved]) -> Extent:
    """Return an extent that shows the same bytes of the new pack, or the extent itself where they were not copied."""
    for one in moved:
        inside = one.offset <= extent.offset and extent.offset + extent.length <= one.offset + one.length
        alike = (one.id, one.generation, data.storage_class) == (extent.id, extent.generation, extent.storage_class)
        if inside and alike:
            offset = one.new_offset + extent.offset - one.offset
            return Extent(
                extent.position, data.id, data.generation, data.size_bytes, offset, extent.length, data.storage_class
            )
    return extent
