"""The store: pages in one arena that any number of processes share.

with Store.open() as store:                     # memory only; `name=` lets unrelated processes attach
    page = store.allocate(4096, name="weights")
    page.write(bytes(4096))
    with store.snapshot() as snapshot: ...
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stoker.core.clock import wall_tick_ns
from stoker.core.errors import UsageError
from stoker.kernels.arenas import OWNER_DEAD, SLOW, fast_arena
from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Counter, Word, plan_geometry
from stoker.pages.arena.mapping import attach_mapping, create_mapping, unlink_mapping
from stoker.pages.batch import Batch, page_id
from stoker.pages.commits import Commit
from stoker.pages.errors import InvalidDelta, PageNotFound, PagesError
from stoker.pages.flushing import Flusher, checked_durability
from stoker.pages.folder import StoreFolder, folder_lock
from stoker.pages.frames import Location, source_number
from stoker.pages.host import Data
from stoker.pages.images import SYSTEM, Meta, MetaValue, decode_meta
from stoker.pages.opening import create_folder, open_arena
from stoker.pages.page import Page
from stoker.pages.snapshot import Snapshot

SIZE_BYTES: Final = 256 << 20
PAGES_MAX: Final = 1 << 16
LOG_BYTES: Final = 16 << 20
SEGMENT_BYTES: Final = 64 << 20
_BUFFERS: Final = (bytes, bytearray, memoryview, np.ndarray)
Committed = Callable[[int, Sequence[int]], None]
"""Called after a commit, without the lock: its LSN and the ids of the pages it concerned."""


class Store:
    """Pages that processes share. Every public call may be made from any thread.

    arena  the shared memory below
    name   by which others attach; empty for a store that only its descriptor names
    """

    def __init__(
        self,
        arena: Arena,
        folder: StoreFolder | None = None,
        flusher: Flusher | None = None,
        durability: str = "none",
    ) -> None:
        self.arena = arena
        self.folder = folder
        self.flusher = flusher
        self.durability = checked_durability(durability)
        self.name = arena.mapping.name
        self._pid = os.getpid()
        self._open = True
        self._names: dict[str, int] = {}
        self._names_structure = -1
        self._sources: dict[str, int] = {"": 0}
        self.listeners: list[Committed] = []
        self._fast = fast_arena(arena.mapping.address, arena.geometry.arena_bytes)
        arena.attach()

    # -- opening and closing -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str = "",
        size_bytes: int = SIZE_BYTES,
        pages_max: int = PAGES_MAX,
        log_bytes: int = LOG_BYTES,
        durability: str = "",
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Open the store in a folder, or make one; without a path, make one that lives in shared memory alone.

        name        of a store in memory, by which others attach; one in a folder is opened by its path everywhere
        size_bytes  of all pages together; pages_max bounds their number. A folder keeps the sizes it was made with
        log_bytes   ring of the newest log frames; a commit takes at most half of it
        durability  of commits that do not tell their own: none, os, data (what a folder has by default), full

        Memory is taken as pages are allocated. The last process that closes the store removes the shared memory.
        Raises AlreadyExistsError for a name in use, OutOfSpace, CorruptLog, ChecksumError, UsageError.
        """
        if min(size_bytes, pages_max, log_bytes, segment_bytes) < 1:
            raise UsageError("sizes of a store of pages are at least 1 byte, or page")
        if path is None:
            if durability not in ("", "none"):
                raise UsageError("store without a folder cannot be durable", got=durability, remedy="give it a path")
            return cls(_published(memory_arena(name, size_bytes, pages_max, log_bytes)))
        if name:
            raise UsageError("store in a folder is opened by its path, not by a name", got=name)
        root = Path(path)
        with folder_lock(root):
            folder = (
                StoreFolder.open(root)
                if StoreFolder.exists(root)
                else create_folder(
                    root,
                    size_bytes=size_bytes,
                    pages_max=pages_max,
                    log_bytes=log_bytes,
                    segment_bytes=segment_bytes,
                )
            )
            arena, flusher = open_arena(folder)
            return cls(arena, folder, flusher, durability or "data")

    @classmethod
    def attach(cls, where: str | int) -> Self:
        """Join a store by its name, or by a descriptor that another process passed on.

        Raises PageNotFound for an unknown name, FormatError and ChecksumError for what is no sound store.
        """
        return cls(Arena(attach_mapping(where)))

    @property
    def descriptor(self) -> int:
        """Descriptor of the shared memory, to pass to another process."""
        return self.arena.mapping.descriptor

    def check_open(self) -> None:
        """Raise PagesError when the store is closed, or was opened by the parent of this process."""
        if not self._open:
            raise PagesError("store of pages is closed", where=self.name)
        if self._pid != os.getpid():
            raise PagesError(
                "store of pages was opened by another process", where=self.name, remedy="attach it in this one"
            )

    def close(self) -> None:
        """Leave the store; the last one to leave removes its name. Twice is no error."""
        if not self._open or self._pid != os.getpid():
            return
        self._open = False
        self._fast = None
        if self.folder and self.flusher:
            with folder_lock(self.folder.path):
                self._leave()
                self.flusher.close()
        else:
            self._leave()
        self.arena.mapping.close()

    def _leave(self) -> None:
        """Leave the arena; what the last one leaves behind is durable, or stays in shared memory."""
        if self.flusher and not self.arena.poison():
            self.flusher.rest()
        if self.arena.detach() and self.name and not self.arena.poison():
            unlink_mapping(self.name)

    def __enter__(self) -> Self:
        """Use it as a context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Leave the store when it was forgotten."""
        with suppress(AttributeError, PagesError):
            self.close()

    # -- pages ---------------------------------------------------------------------------------------------------

    def allocate(
        self,
        size_bytes: int = 0,
        *,
        dtype: DTypeLike | None = None,
        shape: list[int] | tuple[int, ...] | None = None,
        name: str = "",
        location: Location = Location.HOST,
        meta: Meta | None = None,
    ) -> Page:
        """Add a page of zeros: of `size_bytes`, or for an array of `dtype` and `shape`. Raises OutOfSpace."""
        with self.batch() as batch:
            return batch.allocate(size_bytes, dtype=dtype, shape=shape, name=name, location=location, meta=meta)

    def allocate_many(self, sizes_bytes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
        """Add pages of these sizes in one commit; return their ids, uint64 of shape (n,)."""
        with self.batch() as batch:
            pages = [batch.commit.create(int(size), {}) for size in sizes_bytes]
        self.structure_changed()
        return np.array(pages, np.uint64)

    def free_many(self, pages: Sequence[int] | NDArray[np.uint64]) -> int:
        """Remove pages in one commit; return its LSN."""
        with self.batch() as batch:
            for page in pages:
                batch.free(int(page))
        return batch.lsn

    def page(self, which: int | str) -> Page:
        """Return the page of an id or of a name. Raises PageNotFound."""
        if isinstance(which, str):
            return Page(self, self._named(which))
        self.arena.facts(which)
        return Page(self, which)

    def pages(self, *, system: bool = False) -> list[Page]:
        """Return all pages in the order of their ids; the store's own ones too when asked."""
        live = self.arena.live_slots()
        chosen = live if system else live[(live["flags"] & SYSTEM) == 0]
        return [Page(self, int(page)) for page in np.sort(chosen["id"])]

    def _named(self, name: str) -> int:
        structure = self.arena.words[Word.STRUCTURE]
        if structure != self._names_structure:
            self._names = {page.name: page.id for page in self.pages(system=True)[::-1] if page.name}
            self._names_structure = structure
        if name not in self._names:
            raise PageNotFound("no page has this name", where=name)
        return self._names[name]

    def structure_changed(self) -> None:
        """Tell all processes that pages or names came or went."""
        self.arena.words[Word.STRUCTURE] += 1

    def meta_of(self, page: int) -> Meta:
        """Return a page's metadata. Raises PageNotFound."""
        return decode_meta(self.arena.meta(page))

    # -- reading and writing -------------------------------------------------------------------------------------

    def read(self, page: int | Page, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return a copy of a page's bytes, in `out` when it is given. Raises PageNotFound, InvalidDelta."""
        number = page if isinstance(page, int) else page.id
        if self._fast is not None:
            given = np.empty(self._fast.page_bytes(number), np.uint8) if out is None else out
            if given.flags.c_contiguous and self._fast.read(number, given) >= 0:
                return given
        _, data = self.arena.read(number)
        if out is None:
            return data
        if out.nbytes != data.size:
            raise InvalidDelta("array does not fit the page", expected=f"{data.size} bytes", got=f"{out.nbytes}")
        out.reshape(-1).view(np.uint8)[:] = data
        return out

    def write(
        self,
        page: int | Page,
        data: Data,
        *,
        expect_epoch: int | None = None,
        source: str = "",
    ) -> int:
        """Replace all bytes of a page, and return the LSN. Raises as `Page.write`."""
        number = page if isinstance(page, int) else page.id
        writer = self._sources.get(source)
        if self._fast is not None and writer is not None and type(data) in _BUFFERS:
            epoch = -1 if expect_epoch is None else expect_epoch
            try:
                lsn = self._fast.write(number, data, epoch, writer)
            except BufferError:  # not contiguous: the long way copies it
                lsn = SLOW
            if (lsn >= 0 and self.flusher is None and not self.listeners) or self._went(lsn, number):
                return lsn
        with self.batch(source=source) as batch:
            batch.write(page, data, expect_epoch=expect_epoch)
        return batch.lsn

    def write_at(
        self,
        page: int | Page,
        offset: int,
        data: Data,
        *,
        expect_epoch: int | None = None,
        source: str = "",
    ) -> int:
        """Overwrite bytes of a page from `offset` on, and return the LSN. Raises as `Page.write_at`."""
        number = page if isinstance(page, int) else page.id
        writer = self._sources.get(source)
        if self._fast is not None and writer is not None and type(data) in _BUFFERS and offset >= 0:
            epoch = -1 if expect_epoch is None else expect_epoch
            try:
                lsn = self._fast.write_at(number, offset, data, epoch, writer)
            except BufferError:
                lsn = SLOW
            if (lsn >= 0 and self.flusher is None and not self.listeners) or self._went(lsn, number):
                return lsn
        with self.batch(source=source) as batch:
            batch.write_at(page, offset, data, expect_epoch=expect_epoch)
        return batch.lsn

    def update_many(
        self,
        pages: Sequence[int] | NDArray[np.uint64],
        arrays: Sequence[Any] | NDArray[np.generic],
        *,
        source: str = "",
    ) -> int:
        """Replace the bytes of many pages in one commit; `arrays` is a sequence, or an array with a row a page.

        Returns the LSN. Raises InvalidDelta and PageNotFound with nothing changed.
        """
        if self._fast is not None and isinstance(arrays, np.ndarray) and source in self._sources:
            numbers = np.ascontiguousarray(pages, np.uint64)
            if arrays.flags.c_contiguous and arrays.ndim and len(arrays) == len(numbers):
                lsn = self._fast.update_many(numbers, arrays, self._sources[source])
                if self._went(lsn, *(numbers.tolist() if self.listeners else ())):
                    return lsn
        with self.batch(source=source) as batch:
            for page, data in zip(pages, arrays, strict=True):
                batch.write(int(page), data)
        return batch.lsn

    def resize(self, page: int | Page, size_bytes: int) -> int:
        """Give a page another size: what fits is kept, the rest is zero. Returns the LSN."""
        with self.batch() as batch:
            batch.resize(page, size_bytes)
        return batch.lsn

    def clone(self, page: int | Page, *, name: str = "") -> int:
        """Add a page with the same bytes, elements and metadata, under another name; return its id."""
        with self.batch() as batch:
            return batch.clone(page, name=name)

    def free(self, page: int | Page) -> int:
        """Remove a page; snapshots that hold it keep it. Returns the LSN."""
        with self.batch() as batch:
            batch.free(page)
        return batch.lsn

    def set_meta(self, page: int | Page, **values: MetaValue) -> int:
        """Set or, with None, remove entries of a page's metadata. Returns the LSN."""
        with self.batch() as batch:
            batch.set_meta(page, **values)
        return batch.lsn

    def batch(self, *, source: str = "", durability: str = "") -> Batch:
        """Return a batch: changes made in its `with` block are one commit."""
        return Batch(self, source, durability)

    def snapshot(self) -> Snapshot:
        """Return a consistent look at all pages; close it."""
        self.check_open()
        return Snapshot(self.arena)

    @contextmanager
    def view(self, page: int | Page) -> Iterator[NDArray[np.uint8]]:
        """Give a page's bytes without a copy, read-only and unchanging, for a `with` block."""
        with self.snapshot() as snapshot:
            yield snapshot.view(page_id(page))

    def mark(self, name: str) -> int:
        """Name this moment in the log, and return its LSN."""
        with self.batch() as batch:
            batch.mark(name)
        return batch.lsn

    def allocate_id(self, size_bytes: int) -> int:
        """Add a page without name and metadata, and return its id: the shortest way there is. Raises OutOfSpace."""
        if self._fast is not None:
            page = self._fast.allocate(size_bytes)
            if page > 0 and not self.listeners and self.flusher is None:
                return page
            if self._went(page if page < 0 else self.lsn, page):
                return page
        with self.batch() as batch:
            return batch.commit.create(size_bytes, {})

    def free_id(self, page: int) -> int:
        """Remove a page, and return the LSN. Raises PageNotFound."""
        if self._fast is not None:
            lsn = self._fast.release(page)
            if (lsn >= 0 and self.flusher is None and not self.listeners) or self._went(lsn, page):
                return lsn
        return self.free(page)

    def _went(self, lsn: int, *pages: int) -> bool:
        """Do what follows a short way; tell whether it came to its end. Else the long way does it, or says why not."""
        if lsn < 0:
            if lsn == OWNER_DEAD:
                self.arena.lock.mend_held()
                self.arena.lock.release()
            self.check_open()
            return False
        if self.listeners or self.flusher is not None:
            self.committed(lsn, pages, "")
        return True

    # -- commits -------------------------------------------------------------------------------------------------

    def new_commit(self, source: str) -> Commit:
        """Begin a commit; the lock is held. Its first frame names the source when this process has not told it."""
        number = self._sources.get(source) or source_number(source)
        commit = Commit(self.arena, number)
        if source and source not in self._sources:
            commit.name_source(number, source)
            self._sources[source] = number
        return commit

    def committed(self, lsn: int, pages: Sequence[int], durability: str) -> None:
        """Do what follows a commit, without the lock: make it durable as asked, tell the listeners.

        Raises OutOfSpace and Poisoned when it could not be made durable; it is in the pages, but not acknowledged.
        """
        if self.flusher:
            self.flusher.settle(lsn, durability or self.durability)
        for listener in self.listeners:
            listener(lsn, pages)

    @property
    def lsn(self) -> int:
        """LSN of the newest commit."""
        return int(self.arena.words[Word.COMMITTED_LSN])

    @property
    def durable_lsn(self) -> int:
        """LSN up to which commits survive a power loss; 0 for a store in memory."""
        return int(self.arena.words[Word.DURABLE_LSN]) if self.flusher else 0

    def wait_durable(self, lsn: int, timeout_seconds: float = 60.0) -> None:
        """Return when somebody has made this LSN durable; it asks nobody to. Raises Timeout, Poisoned, UsageError."""
        self._flusher().wait(lsn, timeout_seconds)

    def sync(self, durability: str = "data") -> int:
        """Make all commits so far durable, and return the LSN that this holds for. Raises Poisoned, UsageError."""
        lsn = self.lsn
        self._flusher().settle(lsn, checked_durability(durability))
        return lsn

    def _flusher(self) -> Flusher:
        if not self.flusher:
            raise UsageError("store without a folder cannot be durable", where=self.name, remedy="open it with a path")
        return self.flusher

    @staticmethod
    def clock_ns() -> int:
        """Return the time that commits carry: nanoseconds since 1970."""
        return wall_tick_ns()

    def counters(self) -> dict[str, int]:
        """Return what was counted since the store was made, over all processes."""
        return {counter.name.lower(): int(self.arena.words[Word.COUNTERS + counter]) for counter in Counter}


def memory_arena(name: str, size_bytes: int, pages_max: int, log_bytes: int, *, next_lsn: int = 1) -> Arena:
    """Return a new arena without a folder; nobody finds it before it is published."""
    geometry = plan_geometry(
        uuid4().bytes, secrets.randbits(32), data_bytes=size_bytes, page_slots=pages_max, ring_bytes=log_bytes, flags=0
    )
    arena = Arena(create_mapping(geometry, name))
    try:
        arena.prepare(next_lsn)
    except BaseException:
        arena.mapping.discard()
        raise
    return arena


def _published(arena: Arena) -> Arena:
    arena.publish()
    return arena
