"""A store through time: its log, checkpoints, past states."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from stoker.core.errors import UsageError
from stoker.pages.anchoring import AnchorPolicy, Chain
from stoker.pages.arena.audit import audit
from stoker.pages.arena.layout import Word
from stoker.pages.columns import SIZE
from stoker.pages.errors import CorruptPages, FormatError, PageNotFound, PagesError, quarantined
from stoker.pages.folder import StoreFolder
from stoker.pages.frames import CHECKPOINT_RECORD, Frame, FrameType, PageState, asked_of
from stoker.pages.history import (
    NOW,
    CheckpointFacts,
    Kept,
    PageVersion,
    State,
    StateDiff,
    Target,
    Written,
    diff_states,
    list_checkpoints,
    page_history,
    prune_checkpoints,
    replay,
    replay_where,
    verify_checkpoint,
    write_checkpoint,
)
from stoker.pages.history.checkpoint import checkpoint_name
from stoker.pages.history.checkpoint_read import Checkpoint, oldest_kept, open_checkpoint
from stoker.pages.history.index import HOLDER, STORED
from stoker.pages.images import PageImage
from stoker.pages.journal import (
    FrameTable,
    Journal,
    JournalEnd,
    JournalStats,
    is_of,
    journal_stats,
    recover,
    scan_behind,
    scan_tables,
    sources,
)
from stoker.pages.journal.segments import segment_name
from stoker.pages.metrics import StoreStats, store_stats
from stoker.pages.quarantine import put_into_quarantine, restore_pages, take_quarantined
from stoker.pages.store import Store

CHECKPOINTS: Final = AnchorPolicy(seconds_max=math.inf, length_max=16)
"""When an incremental checkpoint is a whole one after all: each file that holds pages of it must be kept and opened. To
restore it takes no longer than a whole one: every page is read once, wherever it lies."""


_TELLING: Final = (FrameType.MARK, FrameType.SOURCE)


class Told(msgspec.Struct):
    """Names of moments and of sources, as the log tells them up to `end`."""

    marks: dict[str, int] = {}
    sources: dict[int, str] = {}
    end: JournalEnd | None = None

    def take(self, frames: Iterator[Frame]) -> None:
        """Take what frames tell."""
        for frame in frames:
            if frame.type == FrameType.MARK:
                self.marks[bytes(frame.payload).decode()] = frame.lsn
            else:
                self.sources.update(sources(iter([frame])))


_TOLD: Final[WeakKeyDictionary[Store, Told]] = WeakKeyDictionary()
"""What this process knows of each open store: so that the next checkpoint reads only the log since."""


class Timeline:
    """The past of an open store. What is kept: frames from the log's floor on, and checkpoints."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def lsn(self) -> int:
        """LSN of the newest commit."""
        return self._store.lsn

    @property
    def uuid(self) -> bytes:
        """Who the store is."""
        return self._store.arena.geometry.uuid

    def numbers(self) -> StoreStats:
        """Return what the store is and did."""
        return store_stats(self._store)

    # -- the log -------------------------------------------------------------------------------------------------

    def _kept(self, folder: StoreFolder) -> Kept:
        """Return what the folder keeps, with all commits so far written to it."""
        self._store.sync("os")
        return Kept(folder.log, folder.checkpoints, self.uuid)

    @property
    def floor_lsn(self) -> int:
        """LSN of the oldest frame that is kept."""
        folder = self._store.folder
        if folder:
            return Kept(folder.log, folder.checkpoints, self.uuid).floor_lsn
        return int(self._store.arena.words[Word.FLOOR_LSN])

    def scan(
        self,
        *,
        since: int = 0,
        until: int | None = None,
        page: int | None = None,
        source: str | None = None,
        kinds: frozenset[FrameType] | None = None,
    ) -> Iterator[Frame]:
        """Yield committed frames: with LSNs from `since` to `until`, of a page, of a source, of some types.

        Raises CorruptLog where a segment is missing, Poisoned when the newest frames cannot be written to the log.
        """
        folder = self._store.folder
        if folder:
            yield from self._kept(folder).scan(since=since, until=until, page=page, source=source, kinds=kinds)
            return
        frames = self._ring_frames()
        names = sources(iter(frames))
        for frame in frames:
            wanted = since <= frame.lsn and (until is None or frame.lsn <= until)
            if wanted and (source is None or is_of(frame, source, names)):
                yield from asked_of(frame, page, kinds)

    def require_sound_log(self) -> None:
        """Raise CorruptLog where the log is damaged before its end; a ring in memory cannot be."""
        folder = self._store.folder
        if folder:
            recover(folder.log, mend=False)

    def sources(self) -> dict[int, str]:
        """Return the names of who wrote, by the number that stands for each in frames."""
        folder = self._store.folder
        return self._kept(folder).sources() if folder else sources(iter(self._ring_frames()))

    def _ring_frames(self) -> list[Frame]:
        arena = self._store.arena
        with arena.lock.held():
            found = arena.ring.frames(arena.words[Word.FLOOR_POS], arena.words[Word.COMMITTED_POS])
            return [msgspec.structs.replace(frame, payload=bytes(frame.payload)) for frame in found]

    def stats(self) -> JournalStats:
        """Return what the log holds."""
        return journal_stats(self.scan())

    # -- past states ---------------------------------------------------------------------------------------------

    def images(self) -> Iterator[PageImage]:
        """Yield all pages as they are now, of one moment; the bytes are views, good until the last was yielded."""
        with self._store.snapshot() as snapshot:
            yield from snapshot.images()

    def state_of(self, image: PageImage) -> PageState:
        """Return the state of a page that `images` told: what processes do with it now, too."""
        try:
            return self._store.arena.state(image.page)
        except PageNotFound:
            return PageState(image.state)

    def state(self) -> State:
        """Return a copy of all pages as they are now."""
        with self._store.snapshot() as snapshot:
            return State.of(snapshot.images(), snapshot.lsn)

    def replay(self, to: Target = NOW) -> State:
        """Return all pages as they were at a moment. The store itself is not touched.

        Raises PagesError for a moment that is not kept any more, or never was.
        """
        folder = self._store.folder
        if folder:
            return self._kept(folder).replay(to)
        self._require_whole_ring()
        return replay(State(), self.scan(), to)

    def _require_whole_ring(self) -> None:
        if self.floor_lsn > 1:
            raise PagesError(
                "log of a store in memory is kept in part",
                expected="all frames from LSN 1 on",
                got=f"LSN {self.floor_lsn}",
                remedy="open the store with a larger log_bytes, or with a folder",
            )

    def states(self, wanted: Callable[[State], bool]) -> Iterator[State]:
        """Yield a copy of all pages after each commit that is kept for which `wanted` says so. Raises PagesError."""
        folder = self._store.folder
        if folder is None:
            self._require_whole_ring()
        base = self._kept(folder).base(Target(mark="")) if folder else State()
        yield from replay_where(base, self.scan(since=base.lsn + 1), wanted)

    def history(self, page: int, *, with_data: bool = False) -> list[PageVersion]:
        """Return what each commit that is kept made of a page, oldest first. Raises PageNotFound, PagesError."""
        folder = self._store.folder
        if folder:
            return self._kept(folder).history(page, with_data=with_data)
        self._require_whole_ring()
        return page_history(State(), self.scan(), page, with_data=with_data)

    def diff(self, old: Target, new: Target = NOW) -> StateDiff:
        """Return what differs between two moments. Raises PagesError for one that is gone, or never was."""
        return diff_states(self.replay(old), self.replay(new))

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def checkpoint(
        self, folder: Path | None = None, *, incremental: bool = False, codec: str = "auto", keep: int = 2
    ) -> Written:
        """Write all pages as of now, while others go on writing; log it, and return what that took.

        folder       where to; the store's own by default, where log and checkpoints older than the newest `keep` go
        incremental  leave pages that are as they were in the newest checkpoint there, unless the chain grew too long

        Raises OutOfSpace, PagesError, UsageError for a store in memory without a folder, or a `keep` below 1;
        Quarantined while a page is: a checkpoint would make its bytes last, and let go of the log that heals it.
        """
        if keep < 1:
            raise UsageError("number of checkpoints to keep is at least 1", got=str(keep))
        own = self._store.folder
        target = folder or (own.checkpoints if own else None)
        if target is None:
            raise UsageError("store in memory has no folder for checkpoints", where=self._store.name, remedy="tell one")
        parent = self._parent(target) if incremental else None
        marks, names = self._told()
        with self._store.snapshot() as snapshot:
            if snapshot.quarantined():
                raise quarantined(snapshot.quarantined()[0])
            facts = CheckpointFacts(
                uuid=self._store.arena.geometry.uuid,
                lsn=snapshot.lsn,
                time_ns=self._store.clock_ns(),
                parent_lsn=parent.facts.lsn if parent else 0,
                max_generation=self._store.arena.table.max_generation(),
                marks={**(parent.index.marks if parent else {}), **marks},
                sources=names,
            )
            if own and target == own.checkpoints:
                # A checkpoint that is ahead of the log would let a power loss give its LSNs to other commits.
                self._store.sync("data")
            written = write_checkpoint(
                target, snapshot.columns(), facts, codec=codec, parent=parent.index if parent else None
            )
        with self._store.batch() as batch:
            batch.commit.record(FrameType.CHECKPOINT, CHECKPOINT_RECORD.pack(written.lsn) + written.path.name.encode())
        if own and target == own.checkpoints:
            self._prune(own.checkpoints, keep)
        return written

    def _told(self) -> tuple[dict[str, int], dict[int, str]]:
        """Return the names of moments and of sources so far."""
        if self._store.folder is None:
            told = Told()
            told.take(self.scan(kinds=frozenset(_TELLING)))
        else:
            self._store.sync("os")
            told = self._told_by_log(self._store.folder)
        return dict(told.marks), dict(told.sources)

    def _told_by_log(self, folder: StoreFolder) -> Told:
        """Go on from where this process looked last, else from the newest checkpoint."""
        store = self._store
        assert store.flusher is not None
        with store.arena.flush_lock.held():
            end = store.flusher.end()
        told = _TOLD.get(store) or Told()
        if told.end and not (folder.log / segment_name(told.end.segment_first_lsn)).exists():
            told = Told()  # a checkpoint was since, and what lay before it is gone
        tables: Iterator[FrameTable]
        if told.end is not None:
            tables = scan_behind(folder.log, told.end)
        else:
            since = 0
            for lsn in reversed(list_checkpoints(folder.checkpoints)):
                with suppress(CorruptPages):
                    index = open_checkpoint(folder.checkpoints / checkpoint_name(lsn)).index
                    told.marks.update(index.marks)
                    told.sources.update(index.sources)
                    since = lsn + 1
                    break
            tables = scan_tables(folder.log, since=since)
        for table in tables:
            told.take(table.of_types(*_TELLING))
        told.end = end
        _TOLD[store] = told
        return told

    @staticmethod
    def _parent(folder: Path) -> Checkpoint | None:
        """Return the newest checkpoint to build on; None where a whole one is due."""
        lsns = list_checkpoints(folder)
        if not lsns:
            return None
        try:
            newest = open_checkpoint(folder / checkpoint_name(lsns[-1]))
        except CorruptPages:
            return None
        entries = newest.index.pages
        holders = entries.holders()
        whole_bytes = int(entries.column(SIZE).sum())
        later = entries.column(HOLDER) != min(holders, default=0)
        chain = int(entries.column(STORED)[later].sum())
        return None if CHECKPOINTS.due(Chain(whole_bytes, len(holders), chain)) else newest

    def _prune(self, folder: Path, keep: int) -> None:
        prune_checkpoints(folder, keep)
        store = self._store
        assert store.folder is not None
        journal = Journal.open(store.folder.log)
        journal.remove_below(oldest_kept(folder, keep) + 1)
        journal.close()

    def checkpoints(self) -> list[int]:
        """Return the LSNs of the store's own checkpoints."""
        return list_checkpoints(self._store.folder.checkpoints) if self._store.folder else []

    # -- proof ---------------------------------------------------------------------------------------------------

    def verify(self, *, quarantine: bool = False) -> list[str]:
        """Return all that is wrong, a sentence each: in the arena, the checkpoints, and between replay and pages.

        quarantine  put pages whose bytes are not what the log gives into quarantine: nobody reads them, nothing is
                    built upon them, until `heal`
        """
        wrong = audit(self._store.arena)
        folder = self._store.folder
        if folder:
            for lsn in list_checkpoints(folder.checkpoints):
                wrong += verify_checkpoint(folder.checkpoints / checkpoint_name(lsn), uuid=self.uuid)
        if not folder and self.floor_lsn > 1:
            return wrong  # the ring has lost its first frames, as it may: there is nothing to hold the pages against
        try:
            with self._store.snapshot() as snapshot:
                now = State.of(snapshot.images(), snapshot.lsn)
            then = self.replay(Target(lsn=now.lsn))
        except FormatError as error:
            return [*wrong, str(error)]
        except PagesError as error:
            return [*wrong, f"replay is not possible: {error}"]
        wrong += [f"page {page} is in quarantine" for page in take_quarantined(then, now)]
        if then.digest() != now.digest():
            found = diff_states(then, now)
            wrong.append(f"replay differs from the pages: {found}")
            if quarantine:
                damaged = {change.page: now.pages[change.page].lsn for change in found.changed if change.ranges}
                wrong += [f"page {page} was put into quarantine" for page in put_into_quarantine(self._store, damaged)]
        return wrong

    def heal(self) -> list[int]:
        """Give the pages in quarantine the bytes that checkpoints and the log give them; return which that were.

        One commit: then they are CLEAN, with one more epoch each. Raises PagesError where the log does not reach back.
        """
        with self._store.snapshot() as snapshot:
            wanted, lsn = snapshot.quarantined(), snapshot.lsn
        return restore_pages(self._store, wanted, self.replay(Target(lsn=lsn))) if wanted else []
