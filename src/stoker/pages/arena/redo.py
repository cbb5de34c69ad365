"""Applying frames to the pages of an arena: when they are committed, and again after the death of their writer.

Every step here may be the last of a process. So each frame can be applied twice: what was done is told by the slot's
LSN, and free lists are made anew after a death, whatever they held. An extent that a snapshot may still read goes to
the retired table before the slot forgets it; one that nobody may read is given back only after the slot has forgotten
it, since that writes into its bytes. Words of a slot change in an order in which each mixture still names all bytes
that applying the frame again reads.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stoker.kernels.deltas import two_level_apply
from stoker.pages.arena.extents import Extent, Extents
from stoker.pages.arena.layout import RETIRED_BYTES, Counter, Retired, Slot, Word
from stoker.pages.arena.mapping import Mapping
from stoker.pages.arena.steps import step
from stoker.pages.arena.table import SLOT_MASK, PageTable, traits
from stoker.pages.errors import CorruptLog, OutOfSpace
from stoker.pages.frames import (
    CREATE_RECORD,
    META_RECORD,
    MOVE_RECORD,
    RESIZE_RECORD,
    RUN_RECORD,
    Codec,
    Frame,
    FrameType,
    PageState,
    padded,
    pages_of,
    parts_of,
)


class Redo:
    """What a frame does to an arena. The commit lock is held."""

    def __init__(self, mapping: Mapping, table: PageTable, extents: Extents) -> None:
        self._mapping = mapping
        self._words = mapping.words
        self._table = table
        self._extents = extents
        self._retired = mapping.geometry.retired_offset >> 3
        self._retired_slots = mapping.geometry.retired_slots
        self._more = False
        self.reserved: dict[int, Extent] = {}
        self._doers = {
            FrameType.CREATE: self._create,
            FrameType.FREE: self._free,
            FrameType.RESIZE: self._resize,
            FrameType.MOVE: self._move,
            FrameType.DELTA: self._overwrite,
            FrameType.IMAGE: self._overwrite,
            FrameType.META: self._meta,
            FrameType.STATE: self._state,
        }

    def apply_all(self, frames: Sequence[Frame]) -> None:
        """Do what the frames of a commit say; a page that several concern is seen by readers only behind the last."""
        last = {page: frame.lsn for frame in frames for page in pages_of(frame)}
        for frame in frames:
            for part in parts_of(frame):
                self._more = part.lsn != last.get(part.page, part.lsn)
                self._apply(part)
                step("commit: applied one")

    def _apply(self, frame: Frame) -> None:
        """Do what the frame says, unless it was done. Frames that concern no page do nothing here."""
        doer = self._doers.get(FrameType(frame.type))
        if doer is None:
            return
        at = self._table.at(frame.page)
        if self._words[at + Slot.ID] == frame.page and self._words[at + Slot.LSN] >= frame.lsn:
            if self._words[at] & 1 and not self._more:  # all but the last step was done
                self._words[at] += 1
            return
        doer(at, frame)

    def _create(self, at: int, frame: Frame) -> None:
        size, offset, extent, state, location, residency, flags, meta_bytes, _ = CREATE_RECORD.unpack_from(
            frame.payload
        )
        self._words[Word.SLOTS_USED] = max(self._words[Word.SLOTS_USED], frame.page & SLOT_MASK)
        with self._table.changing(at, more=self._more):
            np.frombuffer(self._mapping.data, np.uint8, size, offset)[:] = 0
            step("create: zeroed")
            self._words[at + Slot.EPOCH] = frame.epoch
            self._words[at + Slot.OFFSET] = offset
            self._words[at + Slot.SIZE] = size
            self._words[at + Slot.TRAITS] = traits(state, location, residency, frame.elem_width, flags)
            self._words[at + Slot.EXTENT] = extent
            self._words[at + Slot.META_OFFSET] = self._words[at + Slot.META] = 0
            if meta_bytes:
                meta = frame.payload[CREATE_RECORD.size : CREATE_RECORD.size + meta_bytes]
                self._put_meta(at, offset + size, 0, meta)
            self._words[at + Slot.CREATED_LSN] = frame.lsn
            step("create: filled")
            self._words[at + Slot.ID] = frame.page
            self._words[at + Slot.BYTES_LSN] = frame.lsn
            self._words[at + Slot.LSN] = frame.lsn
        self._count_live(1, size)
        self._count(Counter.ALLOCATIONS)

    def _put_meta(self, at: int, offset: int, extent_word: int, meta: bytes | memoryview) -> None:
        self._words[Word.STRUCTURE] += 1
        self._mapping.data[offset : offset + len(meta)] = meta
        self._words[at + Slot.META_OFFSET] = offset
        self._words[at + Slot.META] = len(meta) | extent_word << 32

    def _free(self, at: int, frame: Frame) -> None:
        step("free: begun")
        given_up = [extent for extent in (self._extent_of(at), self._meta_extent(at)) if extent]
        for extent in given_up:
            self._retire(extent, frame)
        step("free: retired")
        size = self._words[at + Slot.SIZE]
        with self._table.changing(at, more=self._more):
            self._words[at + Slot.EPOCH] = frame.epoch
            self._words[at + Slot.TRAITS] = PageState.FREED
            self._words[at + Slot.LSN] = frame.lsn
        step("free: done")
        self._words[Word.STRUCTURE] += 1
        self._table.give(frame.page)
        for extent in given_up:
            self._give(extent)
        self._count_live(-1, -size)
        self._count(Counter.FREES)

    def _resize(self, at: int, frame: Frame) -> None:
        """The new extent came with the frame; nothing of the old one is touched. Metadata behind the bytes move."""
        size, offset, extent, _ = RESIZE_RECORD.unpack_from(frame.payload)
        given_up, old_size = self._extent_of(at), self._words[at + Slot.SIZE]
        data, old, kept = self._mapping.data, given_up[0], min(size, old_size)
        data[offset : offset + kept] = data[old : old + kept]
        np.frombuffer(data, np.uint8, size - kept, offset + kept)[:] = 0
        meta = self._words[at + Slot.META] & 0xFFFF_FFFF if not self._meta_extent(at) else 0
        if meta:
            start = self._words[at + Slot.META_OFFSET]
            data[offset + size : offset + size + meta] = bytes(data[start : start + meta])
        step("resize: copied")
        if old != offset:  # else the writer that died had come farther
            self._retire(given_up, frame)
        step("resize: retired")
        with self._table.changing(at, more=self._more):
            if meta:
                self._words[at + Slot.META_OFFSET] = offset + size
            self._words[at + Slot.OFFSET] = offset
            self._words[at + Slot.SIZE] = size
            self._words[at + Slot.EXTENT] = extent
            self._words[at + Slot.EPOCH] = frame.epoch
            self._words[at + Slot.BYTES_LSN] = frame.lsn
            self._words[at + Slot.LSN] = frame.lsn
        self._give(given_up)
        self._count_live(0, size - old_size)

    def _move(self, at: int, frame: Frame) -> None:
        location, residency = MOVE_RECORD.unpack_from(frame.payload)
        kept = self._words[at + Slot.TRAITS] & ~0xFF_FF00
        self._set_traits(at, frame, kept | location << 8 | residency << 16)

    def _state(self, at: int, frame: Frame) -> None:
        self._set_traits(at, frame, self._words[at + Slot.TRAITS] & ~0xFF | frame.payload[0])

    def _set_traits(self, at: int, frame: Frame, value: int) -> None:
        with self._table.changing(at, more=self._more):
            self._words[at + Slot.TRAITS] = value
            self._words[at + Slot.EPOCH] = frame.epoch
            self._words[at + Slot.LSN] = frame.lsn

    def _meta(self, at: int, frame: Frame) -> None:
        offset, extent, _ = META_RECORD.unpack_from(frame.payload)
        old = self._meta_extent(at)
        if old and old[0] != offset:
            self._retire(old, frame)
        step("meta: retired")
        with self._table.changing(at, more=self._more):
            self._put_meta(at, offset, extent, frame.payload[META_RECORD.size :])
            self._words[at + Slot.EPOCH] = frame.epoch
            self._words[at + Slot.LSN] = frame.lsn
        if old:
            self._give(old)

    def _overwrite(self, at: int, frame: Frame) -> None:
        if self._words[at + Slot.BYTES_LSN] < self._words[Word.PIN_MAX] and not self._swung(at, frame):
            self._copy_on_write(at, frame)
            return
        with self._table.changing(at, more=self._more):
            step("overwrite: begun")
            self._change(self._words[at + Slot.OFFSET], self._words[at + Slot.SIZE], frame)
            step("overwrite: applied")
            self._finish_overwrite(at, frame)
        self._count(Counter.DELTAS if frame.type == FrameType.DELTA else Counter.IMAGES)

    def _copy_on_write(self, at: int, frame: Frame) -> None:
        """A snapshot may read the present bytes: leave them, and let the page go on in another extent of the class."""
        data, size = self._mapping.data, self._words[at + Slot.SIZE]
        old, kind = self._extent_of(at)
        behind = self._words[at + Slot.META] & 0xFFFF_FFFF if not self._meta_extent(at) else 0
        offset, _ = self.reserved.pop(frame.page) if frame.page in self.reserved else self._extents.take_class(kind)
        data[offset : offset + size + behind] = data[old : old + size + behind]
        step("copy on write: copied")
        self._change(offset, size, frame)
        self._retire((old, kind), frame)
        step("copy on write: retired")
        with self._table.changing(at, more=self._more):
            if behind:
                self._words[at + Slot.META_OFFSET] = offset + size
            self._words[at + Slot.OFFSET] = offset
            step("copy on write: swung")
            self._finish_overwrite(at, frame)
        self._count(Counter.COPIES_ON_WRITE)
        self._count(Counter.DELTAS if frame.type == FrameType.DELTA else Counter.IMAGES)

    def _swung(self, at: int, frame: Frame) -> bool:
        """Tell whether a writer that died had come so far that the page has its new extent already."""
        given_up = self._given_up(frame)
        return bool(given_up) and self._words[at + Slot.OFFSET] not in given_up

    def _finish_overwrite(self, at: int, frame: Frame) -> None:
        self._words[at + Slot.TRAITS] = self._words[at + Slot.TRAITS] & ~0xFF | PageState.CLEAN
        self._words[at + Slot.EPOCH] = frame.epoch
        self._words[at + Slot.BYTES_LSN] = frame.lsn
        self._words[at + Slot.LSN] = frame.lsn

    def _change(self, offset: int, size: int, frame: Frame) -> None:
        target = np.frombuffer(self._mapping.data, np.uint8, size, offset)
        if frame.type == FrameType.IMAGE:
            target[:] = np.frombuffer(frame.payload, np.uint8)
        elif frame.codec == Codec.TWO_LEVEL:
            two_level_apply(target.data, frame.payload)
        else:
            apply_runs(target, frame.payload)

    def _extent_of(self, at: int) -> Extent:
        return self._words[at + Slot.OFFSET], self._words[at + Slot.EXTENT]

    def _meta_extent(self, at: int) -> Extent | None:
        """Return the extent of metadata that have one of their own; those made with the page lie behind its bytes."""
        kind = self._words[at + Slot.META] >> 32
        return (self._words[at + Slot.META_OFFSET], kind - 1) if kind else None

    def _given_up(self, frame: Frame) -> list[int]:
        """Return where the extents of its page lie that a frame has retired so far: two at most."""
        first, end = self._words[Word.RETIRED_FIRST], self._words[Word.RETIRED_END]
        last = range(max(first, end - 2), end)
        mine = frame.lsn, frame.page  # the pages of a wave have one LSN
        return [
            self._retired_at(i, Retired.OFFSET)
            for i in last
            if (self._retired_at(i, Retired.LSN), self._retired_at(i, Retired.PAGE)) == mine
        ]

    def _give(self, extent: Extent) -> None:
        """Free an extent that nothing names any more, unless a snapshot is held: then it is retired already."""
        if not self._words[Word.PIN_MAX]:
            self._extents.give(extent)

    def _retire(self, extent: Extent, frame: Frame) -> None:
        """Note, while a snapshot is held, that an extent is to be freed once no snapshot can see it."""
        if not self._words[Word.PIN_MAX] or extent[0] in self._given_up(frame):
            return
        end = self._words[Word.RETIRED_END]
        at = self._retired + end % self._retired_slots * (RETIRED_BYTES >> 3)
        self._words[at + Retired.OFFSET], self._words[at + Retired.EXTENT] = extent
        self._words[at + Retired.LSN], self._words[at + Retired.PAGE] = frame.lsn, frame.page
        self._words[Word.RETIRED_END] = end + 1

    def _retired_at(self, index: int, field: Retired) -> int:
        return int(self._words[self._retired + index % self._retired_slots * (RETIRED_BYTES >> 3) + field])

    def prepare(self, pages: list[int], frames: int) -> None:
        """Take what copies on write will need, while the commit can still be refused. Raises OutOfSpace."""
        self.reserved.clear()
        if not self._words[Word.PIN_MAX]:
            return
        self.release_retired()
        waiting = self._words[Word.RETIRED_END] - self._words[Word.RETIRED_FIRST]
        if waiting + 2 * frames > self._retired_slots:
            raise OutOfSpace(
                "snapshots hold too many versions", expected=f"at most {self._retired_slots}", remedy="close snapshots"
            )
        try:
            for page in pages:
                at = self._table.at(page)
                held = self._words[at + Slot.BYTES_LSN] < self._words[Word.PIN_MAX]
                if held and self._words[at + Slot.ID] == page and page not in self.reserved:
                    self.reserved[page] = self._extents.take_class(self._words[at + Slot.EXTENT])
        except OutOfSpace:
            self.give_back_reserved()
            raise

    def give_back_reserved(self) -> None:
        """Free what was taken for copies that were not made."""
        for extent in self.reserved.values():
            self._extents.give(extent)
        self.reserved.clear()

    def retired(self) -> list[Extent]:
        """Return the extents that wait for snapshots to end."""
        indices = range(self._words[Word.RETIRED_FIRST], self._words[Word.RETIRED_END])
        return [(self._retired_at(i, Retired.OFFSET), self._retired_at(i, Retired.EXTENT)) for i in indices]

    def release_retired(self) -> None:
        """Free retired extents that no snapshot can see any more: those given up at or before the oldest pin."""
        oldest = self._words[Word.PIN_MIN]
        first, end = self._words[Word.RETIRED_FIRST], self._words[Word.RETIRED_END]
        while first < end and (not oldest or self._retired_at(first, Retired.LSN) < oldest):
            extent = self._retired_at(first, Retired.OFFSET), self._retired_at(first, Retired.EXTENT)
            first += 1
            self._words[Word.RETIRED_FIRST] = first  # before it is free: lost at worst until the next repair
            self._extents.give(extent)

    def rebuild(self, pending: Iterable[Frame] = ()) -> None:
        """Make free lists, free slots and counts anew from the tables and from frames not yet applied."""
        live = self._table.live()
        used = list(zip(live["offset"].tolist(), live["extent"].tolist(), strict=True))
        apart = live[live["meta_extent"] > 0]
        used += [(int(row["meta_offset"]), int(row["meta_extent"]) - 1) for row in apart]
        self._extents.rebuild([*used, *self.retired(), *(hint for frame in pending if (hint := _hint(frame)))])
        self._table.rebuild()

    def _count_live(self, pages: int, size_bytes: int) -> None:
        if not self._extents.repairing:  # else they are counted anew at the end: this may have been counted before
            self._words[Word.LIVE_PAGES] += pages
            self._words[Word.LIVE_BYTES] += size_bytes

    def _count(self, counter: Counter) -> None:
        self._words[Word.COUNTERS + counter] += 1


def _hint(frame: Frame) -> Extent | None:
    """Return the extent that a frame gives to its page."""
    if frame.type == FrameType.CREATE:
        fields = CREATE_RECORD.unpack_from(frame.payload)
        return fields[1], fields[2]
    if frame.type == FrameType.RESIZE:
        return RESIZE_RECORD.unpack_from(frame.payload)[1:3]
    if frame.type == FrameType.META:
        offset, extent, _ = META_RECORD.unpack_from(frame.payload)
        return offset, extent - 1
    return None


def apply_runs(target: np.ndarray, payload: bytes | memoryview) -> None:
    """Write runs over a page. Raises CorruptLog for one that leaves it; the runs before it are written."""
    position = 0
    while position < len(payload):
        offset, length = RUN_RECORD.unpack_from(payload, position)
        position += RUN_RECORD.size
        if offset + length > target.size or position + length > len(payload):
            raise CorruptLog("run of a delta leaves its page", expected=f"within {target.size} bytes", got=str(offset))
        target[offset : offset + length] = np.frombuffer(payload[position : position + length], np.uint8)
        position += padded(length)
