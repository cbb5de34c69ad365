"""Filling a new arena with pages that come from a checkpoint and a log: what is loaded is not logged again."""

from collections.abc import Iterable

import msgspec

from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Slot, Word
from stoker.pages.arena.table import SLOT_MASK, traits
from stoker.pages.images import PageImage

_EMPTY_META = msgspec.msgpack.encode({})


def load_images(arena: Arena, images: Iterable[PageImage], *, generation: int) -> None:
    """Put pages with their ids, epochs and LSNs into an arena that nobody else has yet.

    generation  the first that new ids have: above that of every id there ever was. Raises OutOfSpace.
    """
    words = arena.words
    for image in images:
        slot = image.page & SLOT_MASK
        at = arena.table.at(image.page)
        arena.table.back(slot)
        words[Word.SLOTS_USED] = max(words[Word.SLOTS_USED], slot)
        meta = b"" if image.meta == _EMPTY_META else image.meta
        size = image.size_bytes
        offset, extent = arena.extents.take(size + len(meta))
        arena.view(offset, size)[:] = image.data
        arena.mapping.data[offset + size : offset + size + len(meta)] = meta
        words[at + Slot.EPOCH] = image.epoch
        words[at + Slot.OFFSET] = offset
        words[at + Slot.SIZE] = size
        words[at + Slot.TRAITS] = traits(image.state, image.location, image.residency, image.elem_width, image.flags)
        words[at + Slot.EXTENT] = extent
        words[at + Slot.META_OFFSET] = offset + size if meta else 0
        words[at + Slot.META] = len(meta)
        words[at + Slot.CREATED_LSN] = image.lsn
        words[at + Slot.BYTES_LSN] = image.lsn
        words[at + Slot.ID] = image.page
        words[at + Slot.LSN] = image.lsn
    words[Word.GENERATION] = generation
    arena.table.rebuild()
