"""How much of each pack shows, and where: kept by whoever shows or lets go, so that finding sparse packs scans nothing.

The counts are hints for packing anew, which looks at the chunks themselves. A pack of a volume that was made before
they were kept has none, and stays as it is.
"""

from collections.abc import Mapping

from stoker.fs.meta.context import Context
from stoker.fs.meta.keys import holder_key, pack_key, sparse_key
from stoker.fs.meta.records import pack_count, unpack_count
from stoker.fs.meta.slices import Slice


def is_sparse(shown_bytes: int, size_bytes: int) -> bool:
    """Tell whether so little of a pack shows that it stands among those to be packed anew: half of it or less."""
    return 0 < 2 * shown_bytes <= size_bytes


def note_shown(context: Context, data: Slice, ino: int, changes: Mapping[int, int], *, is_new: bool) -> None:
    """Note that the chunks of an inode show so many bytes of a pack more or fewer."""
    view = context.view
    row = view.get(pack_key(data.id))
    if row is None and not is_new:
        return
    for index, difference in changes.items():
        if difference:
            key = holder_key(data.id, ino, index)
            held_bytes = unpack_count(view.get(key)) + difference
            view.put(key, pack_count(held_bytes) if held_bytes > 0 else None)
    difference = sum(changes.values())
    if not difference:
        return
    was_bytes = unpack_count(row)
    now_bytes = max(was_bytes + difference, 0)
    view.put(pack_key(data.id), pack_count(now_bytes) if now_bytes else None)
    sparse = is_sparse(now_bytes, data.size_bytes)
    # A pack that is being filled shows little at first: it is no candidate for that.
    if sparse and difference < 0:
        view.put(sparse_key(data.id), b"")
    elif not sparse and is_sparse(was_bytes, data.size_bytes):
        view.delete(sparse_key(data.id))
