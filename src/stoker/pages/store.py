"""The store: pages in one arena that any number of processes share.

with Store.open() as store:                     # memory only; `name=` lets unrelated processes attach
    page = store.allocate(4096, name="weights")
    page.write(bytes(4096))
    with store.snapshot() as snapshot: ...
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import wall_tick_ns
from stoker.core.errors import UsageError
from stoker.kernels.arenas import OWNER_DEAD, SLOW, short_ways
from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Counter, Word
from stoker.pages.batch import Batch, page_id
from stoker.pages.commits import Commit
from stoker.pages.errors import DeviceError, InvalidDelta, PageNotFound
from stoker.pages.flushing import Flusher, checked_durability
from stoker.pages.folder import StoreFolder
from stoker.pages.frames import Location, Residency, source_number
from stoker.pages.host import Data
from stoker.pages.images import SYSTEM, Meta, MetaValue, decode_meta
from stoker.pages.interchange import write_foreign
from stoker.pages.open_store import LOG_BYTES, PAGES_MAX, SEGMENT_BYTES, SIZE_BYTES, Committed, OpenStore, memory_arena
from stoker.pages.page import Page, as_bytes
from stoker.pages.snapshot import Snapshot

__all__ = ["LOG_BYTES", "PAGES_MAX", "SEGMENT_BYTES", "SIZE_BYTES", "Committed", "Store", "memory_arena"]
_QUICK: Final = 1023  # one commit in so many looks whether the ring should be written out, though nobody waits for it
_BUFFERS: Final = (bytes, bytearray, memoryview, np.ndarray)


class Store(OpenStore):
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
        super().__init__(arena, folder, flusher, durability)
        if self._fast is not None:
            methods = (Store.write, Store.allocate_id, Store.free_id, Store._went)
            self._short = short_ways(self._fast, weakref.ref(self), self.listeners, methods)
            self._short.ready = self._quick is not None
            for name in ("write", "allocate_id", "free_id"):
                # In place of the method, which is called for everything rare; a subclass's own method stays.
                if getattr(type(self), name) is getattr(Store, name):
                    self.__dict__[name] = getattr(self._short, name)

    # -- pages ---------------------------------------------------------------------------------------------------

    def allocate(
        self,
        size_bytes: int = 0,
        *,
        dtype: Any = None,
        shape: list[int] | tuple[int, ...] | None = None,
        name: str = "",
        location: Location = Location.HOST,
        meta: Meta | None = None,
    ) -> Page:
        """Add a page of zeros: of `size_bytes`, or for an array of `dtype` and `shape`; see `Batch.allocate`."""
        with self.batch() as batch:
            return batch.allocate(size_bytes, dtype=dtype, shape=shape, name=name, location=location, meta=meta)

    def allocate_many(self, sizes_bytes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
        """Add pages of these sizes in bytes, in one commit; return their ids, uint64 of shape (n,).

        Raises OutOfSpace and InvalidDelta with none added.
        """
        with self.batch() as batch:
            pages = [batch.commit.create(int(size), {}) for size in sizes_bytes]
        return np.array(pages, np.uint64)

    def free_many(self, pages: Sequence[int] | NDArray[np.uint64]) -> int:
        """Remove pages in one commit; return its LSN. Raises PageNotFound with none removed."""
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
        if self.arena.words[Word.STRUCTURE] != self._names_structure:
            self._names_structure, metas = self.arena.live_metas()
            named = {page: decode_meta(meta).get("name") for page, meta in metas.items()}
            self._names = {str(name): page for page, name in sorted(named.items(), reverse=True) if name}
        if name not in self._names:
            raise PageNotFound("no page has this name", where=name)
        return self._names[name]

    def meta_of(self, page: int) -> Meta:
        """Return a page's metadata. Raises PageNotFound."""
        return decode_meta(self.arena.meta(page))

    # -- reading and writing -------------------------------------------------------------------------------------

    def read(self, page: int | Page, out: Any = None) -> NDArray[np.uint8]:
        """Return a copy of a page's bytes, in `out` when it is given; see `Page.read`. Raises InvalidDelta."""
        number = page if isinstance(page, int) else page.id
        if out is not None and not isinstance(out, np.ndarray):
            foreign: NDArray[np.uint8] = write_foreign(out, self.read(number))
            return foreign
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
        if type(data) not in _BUFFERS:
            data = as_bytes(data)
        if self._fast is not None and writer is not None:
            epoch = -1 if expect_epoch is None else expect_epoch
            try:
                lsn = self._fast.write(number, data, epoch, writer)
            except BufferError:  # not contiguous: the long way copies it
                lsn = SLOW
            if (lsn & _QUICK and lsn >= 0 and self._quick and not self.listeners) or self._went(lsn, number):
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
        if type(data) not in _BUFFERS:
            data = as_bytes(data)
        if self._fast is not None and writer is not None and offset >= 0:
            epoch = -1 if expect_epoch is None else expect_epoch
            try:
                lsn = self._fast.write_at(number, offset, data, epoch, writer)
            except BufferError:
                lsn = SLOW
            if (lsn & _QUICK and lsn >= 0 and self._quick and not self.listeners) or self._went(lsn, number):
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
        if hasattr(arrays, "__dlpack__") and not isinstance(arrays, np.ndarray) and len(pages):
            arrays = as_bytes(arrays).reshape(len(pages), -1)
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

    def write_each(
        self,
        pages: Sequence[int] | NDArray[np.uint64],
        data: Sequence[Any] | NDArray[np.generic],
        *,
        source: str = "",
        durability: str = "",
    ) -> int:
        """Replace the bytes of pages, a commit each, in their order, then make all of them durable at once.

        Where `update_many` is one commit, which is there whole or not at all, a crash leaves the first of these.
        data  a row a page: a sequence, or an array

        Returns the LSN of the last. Raises as `write` for a page, after the commits before it; UsageError.
        """
        numbers = np.ascontiguousarray(pages, np.uint64)
        if len(data) != len(numbers):
            raise UsageError("as many rows as pages are wanted", expected=str(len(numbers)), got=str(len(data)))
        chosen = checked_durability(durability or self.durability)
        done, lsn = 0, self.lsn
        while done < len(numbers):
            done, lsn = self._write_some(numbers, data, done, source)
            if lsn < 0:
                with self.batch(source=source, durability="none") as batch:
                    batch.write(int(numbers[done]), data[done])
                done, lsn = done + 1, batch.lsn
        if self.flusher:
            self.flusher.settle(lsn, chosen)
        return lsn

    def _write_some(self, numbers: NDArray[np.uint64], data: Any, done: int, source: str) -> tuple[int, int]:
        """Go the short way as far as it leads; return how many are done, and the LSN, negative where it ends."""
        if self._fast is None or self.listeners or source not in self._sources:
            return done, SLOW
        try:
            done, lsn = self._fast.write_each(numbers, data, done, self._sources[source])
        except (BufferError, TypeError):  # rows that are no plain memory: one by one
            return done, SLOW
        if lsn < 0:
            self._went(lsn)
        return done, lsn

    def resize(self, page: int | Page, size_bytes: int) -> int:
        """Give a page another size: what fits is kept, the rest is zero. Returns the LSN. Raises as `Batch.resize`."""
        with self.batch() as batch:
            batch.resize(page, size_bytes)
        return batch.lsn

    def clone(self, page: int | Page, *, name: str = "") -> int:
        """Add a page with the same bytes, elements and metadata, under another name; return its id.

        Raises PageNotFound, OutOfSpace.
        """
        with self.batch() as batch:
            return batch.clone(page, name=name)

    def free(self, page: int | Page) -> int:
        """Remove a page; snapshots that hold it keep it. Returns the LSN. Raises PageNotFound."""
        with self.batch() as batch:
            batch.free(page)
        return batch.lsn

    def move_to(self, page: int, device: str, *, mode: str = "device") -> int:
        """Take a page back to the host; `stoker.pages.Store` knows devices too. Returns the LSN, raises DeviceError."""
        if device != "host":
            raise DeviceError("core of a store knows no devices", got=device, remedy="open it as stoker.pages.Store")
        with self.batch() as batch:
            batch.move(page, Location.HOST, Residency.HOST)
        return batch.lsn

    def set_meta(self, page: int | Page, **values: MetaValue) -> int:
        """Set or, with None, remove entries of a page's metadata. Returns the LSN. Raises PageNotFound, OutOfSpace."""
        with self.batch() as batch:
            batch.set_meta(page, **values)
        return batch.lsn

    def batch(self, *, source: str = "", durability: str = "") -> Batch:
        """Return a batch: changes made in its `with` block are one commit.

        Leaving the block raises OutOfSpace for a commit larger than half of the ring, Poisoned after a failed log.
        """
        return Batch(self, source, durability)

    def snapshot(self) -> Snapshot:
        """Return a consistent look at all pages; close it."""
        self.check_open()
        return Snapshot(self.arena)

    @contextmanager
    def view(self, page: int | Page) -> Iterator[NDArray[np.uint8]]:
        """Give a page's bytes without a copy, read-only and unchanging, uint8 of shape (size,), for a `with` block.

        Raises PageNotFound.
        """
        with self.snapshot() as snapshot:
            yield snapshot.view(page_id(page))

    def mark(self, name: str) -> int:
        """Name this moment in the log, and return its LSN. Raises OutOfSpace, Poisoned."""
        with self.batch() as batch:
            batch.mark(name)
        return batch.lsn

    def allocate_id(self, size_bytes: int) -> int:
        """Add a page without name and metadata, and return its id: the shortest way there is. Raises OutOfSpace."""
        quick = self._quick
        if quick is not None and not self.listeners:
            page = quick.allocate(size_bytes)
            if page > 0:
                return page
            self._went(page)
        elif self._fast is not None:
            page = self._fast.allocate(size_bytes)
            if self._went(page if page < 0 else self.lsn, page):
                return page
        with self.batch() as batch:
            return batch.commit.create(size_bytes, {})

    def free_id(self, page: int) -> int:
        """Remove a page, and return the LSN. Raises PageNotFound."""
        quick = self._quick
        if quick is not None and not self.listeners:
            lsn = quick.release(page)
            if lsn >= 0:
                return lsn
            self._went(lsn)
        elif self._fast is not None:
            lsn = self._fast.release(page)
            if self._went(lsn, page):
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

    def source_number(self, source: str) -> int:
        """Return the number that stands for a source in frames, 0 for one that this process has not told yet."""
        return self._sources.get(source, 0)

    def new_commit(self, source: str) -> Commit:
        """Begin a commit; the lock is held. Its first frame names the source when this process has not told it."""
        number = self._sources.get(source) or source_number(source)
        commit = Commit(self.arena, number)
        if source and source not in self._sources:
            commit.name_source(number, source, self._sources)
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
