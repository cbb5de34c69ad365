"""One arena: its memory, tables, ring and locks, and what is done to them under the commit lock.

A commit: frames are written to the ring, the intent is set (from now on it happens, whoever dies), every frame is
applied, the commit is published. Who takes the lock after a dead owner applies the frames between COMMITTED_POS and
INTENT_POS again; frames behind the intent were never promised to anybody and are forgotten.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.pages.arena.extents import Extent, Extents
from stoker.pages.arena.layout import ATTACHED, PINNED, RETIRED_BYTES, Counter, Geometry, Slot, Word
from stoker.pages.arena.locks import AlreadyHeldError, RobustLock
from stoker.pages.arena.mapping import Mapping, publish_mapping, unlink_mapping
from stoker.pages.arena.readers import Readers
from stoker.pages.arena.redo import Redo
from stoker.pages.arena.ring import Ring
from stoker.pages.arena.steps import step
from stoker.pages.arena.table import PageTable
from stoker.pages.errors import CorruptLog, OutOfSpace, Poisoned, quarantined
from stoker.pages.frames import LAST, Frame, FrameType, PageState, encode_frame, frame_bytes, parts_of

PERSISTENT: Final = 1
"""Flag of an arena whose ring is flushed to a journal."""
_READ_TRIES: Final = 200
READ_TIMEOUT_SECONDS: Final = 30.0
"""How long a reader waits for a writer that was stopped while it changed the very page, or keeps changing it."""
_T = TypeVar("_T")


class PageFacts(msgspec.Struct, frozen=True):
    """What the page table says of a page: its slot's words, and where its bytes lie in the arena."""

    page: int
    epoch: int
    lsn: int
    offset: int
    size_bytes: int
    state: int
    location: int
    residency: int
    elem_width: int
    flags: int
    meta_offset: int
    meta_bytes: int
    created_lsn: int


class Arena:
    """An arena as one process sees it.

    make_room   called with the commit lock held when the ring is full of frames that are not yet flushed
    mend_flush  called with the flush lock held when its last owner died
    """

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.words = mapping.words
        self.table = PageTable(mapping)
        self.extents = Extents(mapping)
        self.readers = Readers(mapping)
        self.ring = Ring(mapping, keep_unflushed=bool(self.geometry.flags & PERSISTENT))
        self.redo = Redo(mapping, self.table, self.extents)
        self.make_room: Callable[[], None] = _nothing
        self.lock = RobustLock(mapping.address + Word.COMMIT_LOCK * 8, self.recover, self._intended)
        self.mend_flush: Callable[[], None] = _nothing
        self.flush_lock = RobustLock(mapping.address + Word.FLUSH_LOCK * 8, self._flusher_died)
        self._line = 0
        self._unpinned: list[int] = []

    @property
    def geometry(self) -> Geometry:
        """Sizes and identity."""
        return self.mapping.geometry

    def prepare(self, next_lsn: int = 1) -> None:
        """Make a new arena sound; the first frame will have `next_lsn`. Nobody finds it before `publish`."""
        RobustLock.initialise(self.mapping.address + Word.COMMIT_LOCK * 8)
        RobustLock.initialise(self.mapping.address + Word.FLUSH_LOCK * 8)
        self.extents.initialise()
        for word in (Word.COMMITTED_LSN, Word.INTENT_LSN, Word.FLUSHED_LSN, Word.DURABLE_LSN):
            self.words[word] = next_lsn - 1
        self.words[Word.FLOOR_LSN] = next_lsn

    def publish(self) -> None:
        """Let others find the arena by its name; this process has it attached from then on. Raises AlreadyExistsError.

        It is attached before, lest somebody sweeps it away as deserted.
        """
        self.attach()
        publish_mapping(self.mapping)

    def attach(self) -> None:
        """Enter this process into the reader table, unless it is there. Raises OutOfSpace."""
        if not self._line:
            with self.lock.held():
                self._line = self.readers.register(ATTACHED)

    def detach(self, *, unlink: bool = False) -> bool:
        """Take this process out of the reader table; tell whether it was the last one.

        unlink  the last one removes the name before anybody else can attach
        """
        with self.lock.held():
            if self._line:
                self.readers.forget(self._line)
                self._line = 0
            self.readers.sweep()
            last = not self.readers.attached()
            if last and unlink and self.mapping.is_named():
                unlink_mapping(self.mapping.name)
            return last

    def announce(self, kind: int, page: int) -> int:
        """Say that this process edits or makes a page, and return the line that tells it; 0 where none is left."""
        with self.lock.held():
            try:
                return self.readers.register(kind, page)
            except OutOfSpace:
                return 0

    def withdraw(self, line: int) -> None:
        """Take a line back that `announce` gave."""
        if line:
            with self.lock.held():
                self.readers.forget(line)

    # -- commits -------------------------------------------------------------------------------------------------

    def take(self, size_bytes: int) -> Extent:
        """Return an extent for a commit; the lock is held. What dead processes hold is freed before it is refused.

        Raises OutOfSpace.
        """
        return self._pressed(lambda: self.extents.take(size_bytes))

    def _pressed(self, want: Callable[[], _T]) -> _T:
        """Return what `want` gives; where that is OutOfSpace, once more without the snapshots of dead processes."""
        try:
            return want()
        except OutOfSpace:
            if not self.readers.sweep():
                raise
        self.redo.release_retired()
        return want()

    def log(self, frames: Sequence[Frame]) -> list[Frame]:
        """Write frames to the ring as one commit, for `carry_out`; the lock is held. Returns them with their LSNs.

        LSNs and the flag of the last frame are filled in here. Raises OutOfSpace and Poisoned with nothing changed.
        """
        self.settle_unpinned()
        if self.words[Word.POISON]:
            raise poisoned(self.words[Word.POISON])
        lsn = self.words[Word.COMMITTED_LSN]
        last = len(frames)
        numbered = [
            msgspec.structs.replace(frame, lsn=lsn + index, flags=LAST if index == last else 0)
            for index, frame in enumerate(frames, 1)
        ]
        end = self.ring.end_of([frame_bytes(frame) for frame in numbered])
        if not self.ring.has_room(end):
            self.make_room()
            self._check_room(end)
        parts = [part for frame in frames for part in parts_of(frame)]
        writes = [part.page for part in parts if part.type in {FrameType.DELTA, FrameType.IMAGE}]
        self._pressed(lambda: self.redo.prepare(writes, len(parts)))
        try:
            step("commit: begun")
            self.ring.write([encode_frame(frame, self.ring.salt) for frame in numbered], end)
            step("commit: logged")
        except BaseException:
            self.redo.give_back_reserved()
            raise
        return numbered

    def _check_room(self, end: int) -> None:
        if not self.ring.has_room(end):
            raise OutOfSpace(
                "log ring is full of commits that are not written out",
                where=self.mapping.name,
                remedy="open the store by the path of its folder: only such a process writes them out",
            )

    def carry_out(self, frames: Sequence[Frame]) -> int:
        """Apply frames that `log` has just written; the lock is held. Returns the commit's LSN, the last frame's.

        What is raised here, a signal's exception for one, comes after the commit was ended all the same.
        """
        try:
            self.words[Word.INTENT_LSN] = frames[-1].lsn
            self.words[Word.INTENT_POS] = self.ring.end_of([frame_bytes(frame) for frame in frames])
            step("commit: intended")
            self.redo.apply_all(frames)
            self._publish()
        except BaseException:
            self.recover()
            raise
        self.redo.give_back_reserved()
        self.words[Word.COUNTERS + Counter.COMMITS] += 1
        self.words[Word.COUNTERS + Counter.FRAMES] += len(frames)
        return frames[-1].lsn

    def _intended(self) -> bool:
        """Tell whether a commit was begun that is not ended."""
        return bool(self.words[Word.INTENT_POS] > self.words[Word.COMMITTED_POS])

    def _publish(self) -> None:
        """The one word that ends a commit is the position: what it and the LSN say is mended from the intent."""
        self.words[Word.COMMITTED_LSN] = self.words[Word.INTENT_LSN]
        step("commit: numbered")
        self.words[Word.COMMITTED_POS] = self.words[Word.INTENT_POS]
        step("commit: published")

    def recover(self) -> None:
        """End what a dead owner began; the lock is held. What it raises leaves all as it is, for the next to try."""
        self.redo.reserved.clear()
        self.ring.mend_floor()
        start, end = self.words[Word.COMMITTED_POS], self.words[Word.INTENT_POS]
        pending = list(self.ring.frames(start, end)) if end > start else []
        if end > start and (not pending or not pending[-1].last):
            raise CorruptLog("commit that was intended is not in the ring", got=f"{len(pending)} frames")
        self.redo.rebuild(pending)
        self.extents.repairing = True
        self.redo.apply_all(pending)
        self.redo.rebuild()
        if pending:
            self._publish()
        self.readers.sweep()
        self.readers.renew()
        self.redo.release_retired()
        self.words[Word.COUNTERS + Counter.RECOVERIES] += 1

    def _flusher_died(self) -> None:
        self.mend_flush()

    def poison(self) -> int:
        """Return the errno of the failure after which the log takes nothing more, 0 for none."""
        return int(self.words[Word.POISON])

    # -- reading -------------------------------------------------------------------------------------------------

    def facts_at(self, at: int) -> PageFacts:
        """Return what a slot says now; consistent only under the lock, or when its SEQ is compared."""
        words = self.words
        traits, meta = words[at + Slot.TRAITS], words[at + Slot.META]
        return PageFacts(
            page=words[at + Slot.ID],
            epoch=words[at + Slot.EPOCH],
            lsn=words[at + Slot.LSN],
            offset=words[at + Slot.OFFSET],
            size_bytes=words[at + Slot.SIZE],
            state=traits & 0xFF,
            location=traits >> 8 & 0xFF,
            residency=traits >> 16 & 0xFF,
            elem_width=traits >> 24 & 0xFF,
            flags=traits >> 32 & 0xFF,
            meta_offset=words[at + Slot.META_OFFSET],
            meta_bytes=meta & 0xFFFF_FFFF,
            created_lsn=words[at + Slot.CREATED_LSN],
        )

    def _stable(self, page: int, take: Callable[[PageFacts], _T]) -> _T:
        """Return `take(facts)` of a moment at which nobody changed the page. Raises PageNotFound, Timeout."""
        at = self.table.at(page)
        for _ in range(_READ_TRIES):
            before = self.words[at]
            if before & 1:
                os.sched_yield()
                continue
            self.table.find(page)
            taken = take(self.facts_at(at))
            if self.words[at] == before:
                return taken
        # A writer that is faster than we are, or dead: then this mends the page.
        with self.lock.held(READ_TIMEOUT_SECONDS):
            self.table.find(page)
            return take(self.facts_at(at))

    def facts(self, page: int) -> PageFacts:
        """Return what the page table says. Raises PageNotFound."""
        return self._stable(page, lambda facts: facts)

    def read(self, page: int) -> tuple[PageFacts, NDArray[np.uint8]]:
        """Return facts and a copy of the bytes, of one moment. Raises PageNotFound, Quarantined."""
        return self._stable(page, self._copied)

    def _copied(self, facts: PageFacts) -> tuple[PageFacts, NDArray[np.uint8]]:
        if facts.state == PageState.QUARANTINED:
            raise quarantined(facts.page)
        return facts, self.view(facts.offset, facts.size_bytes).copy()

    def state(self, page: int) -> PageState:
        """Return a page's state: what the table says, or what living processes do with it. Raises PageNotFound.

        DIRTY and COMPUTING are of processes, not of bytes: nobody logs them, and they end with who is at it.
        """
        told = PageState(self.facts(page).state)
        if told == PageState.QUARANTINED:
            return told
        edited, made, killed = self.readers.busy(page)
        if made:
            return PageState.COMPUTING
        if edited:
            return PageState.DIRTY
        return PageState.STALE if killed else told

    def meta(self, page: int) -> bytes:
        """Return the metadata of a page, encoded. Raises PageNotFound."""
        return self._stable(page, self.meta_of)

    def meta_of(self, facts: PageFacts) -> bytes:
        """Return the metadata that these facts tell of."""
        return bytes(self.view(facts.meta_offset, facts.meta_bytes)) or b"\x80"

    def view(self, offset: int, size_bytes: int) -> NDArray[np.uint8]:
        """Return bytes of the arena itself; those torn by a change are out of its bounds at worst, never of ours."""
        offset = min(offset, self.geometry.arena_bytes)
        return np.frombuffer(self.mapping.data, np.uint8, min(size_bytes, self.geometry.arena_bytes - offset), offset)

    def whole_view(self) -> NDArray[np.uint8]:
        """Return all bytes of the arena, read-only."""
        found = np.frombuffer(self.mapping.data, np.uint8, self.geometry.arena_bytes)
        found.flags.writeable = False
        return found

    def live_slots(self) -> NDArray[np.void]:
        """Return a consistent copy of the slots that hold pages; inside a batch of this thread, as before it."""
        return self._at_rest(self.table.live)

    def live_metas(self) -> tuple[int, dict[int, bytes]]:
        """Return metadata, encoded, of the pages that have any, by id; and STRUCTURE of that moment."""
        return self._at_rest(lambda: (int(self.words[Word.STRUCTURE]), self._metas()))

    def _metas(self) -> dict[int, bytes]:
        live = self.table.live()
        chosen = live[live["meta_bytes"] > 0]
        return {int(row["id"]): bytes(self.view(int(row["meta_offset"]), int(row["meta_bytes"]))) for row in chosen}

    def _at_rest(self, look: Callable[[], _T]) -> _T:
        """Return what `look` gives while nobody commits; inside a batch of this thread, as before it."""
        try:
            self.lock.acquire()
        except AlreadyHeldError:
            return look()
        try:
            return look()
        finally:
            self.lock.release()

    # -- snapshots -----------------------------------------------------------------------------------------------

    @contextmanager
    def pinned(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Hold the present versions for a `with` block; yields the LSN and a copy of the page table."""
        line, lsn, slots = self.pin()
        try:
            yield lsn, slots
        finally:
            self.unpin(line)

    def pin(self) -> tuple[int, int, NDArray[np.void]]:
        """Hold the present versions until `unpin`; returns the line to unpin, the LSN and the live slots."""
        with self.lock.held():
            lsn = self.words[Word.COMMITTED_LSN]
            self._back_retired()
            line = self.readers.register(PINNED, lsn)
            self.words[Word.COUNTERS + Counter.SNAPSHOTS] += 1
            return line, int(lsn), self.table.live()

    def _back_retired(self) -> None:
        if not self.words[Word.RETIRED_BACKED]:
            self.mapping.back(self.geometry.retired_offset, self.geometry.retired_slots * RETIRED_BYTES)
            self.words[Word.RETIRED_BACKED] = 1

    def unpin(self, line: int) -> None:
        """Let go of versions, and free those that nobody holds; inside a commit of this thread, once it ends."""
        self._unpinned.append(line)
        try:
            self.lock.acquire()
        except AlreadyHeldError:
            return
        try:
            self.settle_unpinned()
        finally:
            self.lock.release()

    def settle_unpinned(self) -> None:
        """Do what `unpin` could not do at once; the lock is held."""
        while self._unpinned:
            self.readers.forget(self._unpinned.pop())
            self.redo.release_retired()

    def sweep(self) -> int:
        """Free what dead processes held; return how many lines that were."""
        with self.lock.held():
            gone = self.readers.sweep()
            self.redo.release_retired()
            return gone


def _nothing() -> None:
    """A store without a journal has no flush to mend."""


def poisoned(number: int) -> Poisoned:
    """Return the error for a store whose log failed with this errno."""
    return Poisoned(
        "store of pages takes no more writes: its log could not be written",
        got=os.strerror(number),
        remedy="mend the disk and open the store again; what was acknowledged is there",
    )
