"""The page table: one slot of 128 bytes a page, read without locks.

A page's id is `generation << 32 | slot`: found at once, never used twice. Whoever changes a slot makes its SEQ odd
first and even again at the end; whoever reads without the lock compares SEQ before and after.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.pages.arena.layout import SLOT_BYTES, Slot, Word
from stoker.pages.arena.mapping import Mapping
from stoker.pages.errors import OutOfSpace, PageNotFound
from stoker.pages.frames import PageState

SLOT_MASK: Final = 0xFFFF_FFFF
SLOT_DTYPE: Final = np.dtype(
    {
        "names": [
            "seq",
            "id",
            "epoch",
            "lsn",
            "offset",
            "size",
            "state",
            "location",
            "residency",
            "elem_width",
            "flags",
            "extent",
            "meta_offset",
            "meta_bytes",
            "meta_extent",
            "created_lsn",
        ],
        "formats": ["<u8"] * 6 + ["u1"] * 5 + ["<u8", "<u8", "<u4", "<u4", "<u8"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 49, 50, 51, 52, 56, 64, 72, 76, 80],
        "itemsize": SLOT_BYTES,
    }
)
"""A slot as a record of NumPy."""
LIVE_STATES: Final = (PageState.CLEAN, PageState.DIRTY, PageState.STALE, PageState.COMPUTING, PageState.QUARANTINED)
_SLOTS_STEP: Final = 512


def traits(state: int, location: int, residency: int, elem_width: int, flags: int) -> int:
    """Return the word that holds these five bytes."""
    return state | location << 8 | residency << 16 | elem_width << 24 | flags << 32


class PageTable:
    """The page table of one arena. Changes want the commit lock."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._words = mapping.words
        self._first = mapping.geometry.slot_offset >> 3
        self._count = mapping.geometry.page_slots

    def at(self, page: int) -> int:
        """Return the index of the first word of the page's slot. Raises PageNotFound where it cannot have one."""
        slot = page & SLOT_MASK
        if not 0 < slot <= self._count:
            raise PageNotFound("no page has this id", got=str(page))
        return self._first + slot * (SLOT_BYTES >> 3)

    def find(self, page: int) -> int:
        """Return the index of the slot's first word, of a live page. Raises PageNotFound."""
        at = self.at(page)
        if self._words[at + Slot.ID] != page or self._words[at + Slot.TRAITS] & 0xFF not in LIVE_STATES:
            raise PageNotFound("no page has this id", got=str(page))
        return at

    def take(self) -> int:
        """Return the id of a new page: of a freed slot with its next generation, or of the next slot. The slot is
        out of the list from now on. Raises OutOfSpace."""
        slot = self._words[Word.SLOT_FREE]
        if slot:
            at = self._first + slot * (SLOT_BYTES >> 3)
            self._words[Word.SLOT_FREE] = self._words[at + Slot.NEXT_FREE]
            born = self._words[at + Slot.ID]
            generation = (born >> 32) + 1 if born else 0
            return int(max(generation, self._words[Word.GENERATION]) << 32 | slot)
        slot = self._words[Word.SLOTS_USED] + 1
        if slot > self._count:
            raise OutOfSpace(
                "page table is full",
                expected=f"at most {self._count} pages",
                remedy="free pages, or open the store with a larger pages_max",
            )
        self.back(slot)
        self._words[Word.SLOTS_USED] = slot
        return int(self._words[Word.GENERATION] << 32 | slot)

    def back(self, slot: int) -> None:
        """Have memory behind the table up to a slot. Raises OutOfSpace."""
        backed = self._words[Word.SLOTS_BACKED]
        if slot > backed:
            grown = min(self._count, slot + _SLOTS_STEP)
            start = self._mapping.geometry.slot_offset + backed * SLOT_BYTES
            self._mapping.back(start, (grown + 1 - backed) * SLOT_BYTES)
            self._words[Word.SLOTS_BACKED] = grown

    def give(self, page: int) -> None:
        """Put a freed page's slot into the list."""
        self._words[self.at(page) + Slot.NEXT_FREE] = self._words[Word.SLOT_FREE]
        self._words[Word.SLOT_FREE] = page & SLOT_MASK

    def max_generation(self) -> int:
        """Return the largest generation that any id ever had."""
        used = self.records()["id"]
        return max(int(used.max() >> np.uint64(32)) if used.size else 0, int(self._words[Word.GENERATION]))

    def free_slots(self) -> list[int]:
        """Return the slots in the list of free ones; cut short where it runs in a circle."""
        found: list[int] = []
        slot = self._words[Word.SLOT_FREE]
        while slot and len(found) <= self._count:
            found.append(int(slot))
            slot = self._words[self._first + slot * (SLOT_BYTES >> 3) + Slot.NEXT_FREE]
        return found

    @contextmanager
    def changing(self, at: int, *, more: bool = False) -> Iterator[None]:
        """Hold readers off a slot. A change that breaks off leaves it odd, for the redo to end.

        more  the commit changes it again: readers are held off until then
        """
        sequence = self._words[at] | 1
        self._words[at] = sequence
        yield
        if not more:
            self._words[at] = sequence + 1

    def records(self) -> NDArray[np.void]:
        """Return a view of all slots ever used, shape (slots,), dtype SLOT_DTYPE; index 0 is slot 1."""
        used = int(self._words[Word.SLOTS_USED])
        start = self._mapping.geometry.slot_offset + SLOT_BYTES
        return np.frombuffer(self._mapping.data, SLOT_DTYPE, count=used, offset=start)

    def live(self) -> NDArray[np.void]:
        """Return a copy of the slots that hold pages. Consistent only with the commit lock held."""
        records = self.records()
        return records[np.isin(records["state"], LIVE_STATES)].copy()

    def rebuild(self) -> None:
        """Make the list of free slots and the counts anew."""
        records = self.records()
        free = np.flatnonzero(~np.isin(records["state"], LIVE_STATES)) + 1
        head = 0
        for slot in free[::-1].tolist():
            self._words[self._first + slot * (SLOT_BYTES >> 3) + Slot.NEXT_FREE] = head
            head = slot
        self._words[Word.SLOT_FREE] = head
        live = self.live()
        self._words[Word.LIVE_PAGES] = len(live)
        self._words[Word.LIVE_BYTES] = int(live["size"].sum())
