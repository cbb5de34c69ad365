"""Many changes as one commit: all of them are there at once, or none ever is."""

import math
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stoker.pages.commits import Commit
from stoker.pages.elements import element_type
from stoker.pages.errors import InvalidDelta
from stoker.pages.frames import Location, PageState
from stoker.pages.host import Data, PageHost
from stoker.pages.images import Meta, MetaValue
from stoker.pages.page import ELEMENTS_KEY, SHAPE_KEY, Page, as_bytes


class Batch:
    """A commit under way, in a `with` block; an exception in the block abandons it.

    The store's lock is held for the block: other writers wait, readers do not. Reads inside see the batch's own writes.
    After the block, `lsn` is the commit's.
    """

    def __init__(self, store: PageHost, source: str, durability: str) -> None:
        self._store = store
        self._source = source
        self._durability = durability
        self._commit: Commit | None = None
        self._finished = False
        self.lsn = 0

    def __enter__(self) -> Self:
        """Take the lock."""
        self._store.check_open()
        self._store.arena.lock.acquire()
        try:
            self._commit = self._store.new_commit(self._source)
        except BaseException:
            self._store.arena.lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or abandon when the block raised."""
        commit = self.commit
        self._commit = None
        try:
            if kind is None and not self._finished:
                self.lsn = commit.finish()
        finally:
            commit.abandon()
            self._store.arena.lock.release()
        if kind is None:
            self._store.committed(self.lsn, commit.pages(), self._durability)

    def finish(self) -> int:
        """Commit now, as the block's last operation, and return the LSN: the lock is held until the block ends."""
        self.lsn = self.commit.finish()
        self._finished = True
        return self.lsn

    @property
    def commit(self) -> Commit:
        """The commit under way. Raises InvalidDelta outside the block."""
        if self._commit is None:
            raise InvalidDelta("batch is not under way: use it in a with block, once")
        return self._commit

    # -- operations ----------------------------------------------------------------------------------------------

    def allocate(
        self,
        size_bytes: int = 0,
        *,
        dtype: Any = None,
        shape: list[int] | tuple[int, ...] | None = None,
        name: str = "",
        location: Location = Location.HOST,
        meta: Meta | None = None,
        flags: int = 0,
    ) -> Page:
        """Add a page of zeros: of `size_bytes`, or for an array of `dtype` and `shape`.

        dtype  of NumPy or torch, or a name such as `bfloat16`

        Raises OutOfSpace, InvalidDelta for a size below 1.
        """
        facts: Meta = dict(meta or {})
        if name:
            facts["name"] = name
        elem_width = 1
        if dtype is not None:
            facts[ELEMENTS_KEY], item_bytes = element_type(dtype)
            elem_width = item_bytes if item_bytes in (1, 2, 4, 8) else 1
            if shape is not None:
                facts[SHAPE_KEY] = [int(side) for side in shape]
                size_bytes = size_bytes or math.prod(shape) * item_bytes
        page = self.commit.create(size_bytes, facts, elem_width=elem_width, location=location, flags=flags)
        return Page(self._store, page)

    def free(self, page: int | Page) -> None:
        """Remove a page. Raises PageNotFound."""
        self.commit.free(page_id(page))

    def read(self, page: int | Page) -> NDArray[np.uint8]:
        """Return a copy of the bytes as this batch has made them, uint8 of shape (size,). Raises PageNotFound."""
        return self.commit.image(page_id(page)).copy()

    def write(self, page: int | Page, data: Data, *, expect_epoch: int | None = None) -> None:
        """Replace all bytes of a page.

        Raises PageNotFound, InvalidDelta for another size, Conflict for another epoch.
        """
        number, given = page_id(page), as_bytes(data)
        self.commit.expect(number, expect_epoch)
        size_bytes = self.commit.facts(number).size_bytes
        if given.size != size_bytes:
            raise InvalidDelta(
                "data do not fit the page", where=str(number), expected=f"{size_bytes} bytes", got=f"{given.size}"
            )
        self.commit.write(number, given)

    def write_at(self, page: int | Page, offset: int, data: Data, *, expect_epoch: int | None = None) -> None:
        """Overwrite bytes from byte `offset` on.

        Raises PageNotFound, InvalidDelta beyond the page's end, Conflict for another epoch.
        """
        self.commit.expect(page_id(page), expect_epoch)
        self.commit.write_at(page_id(page), offset, as_bytes(data))

    def apply_delta(self, page: int | Page, payload: bytes, *, expect_epoch: int) -> None:
        """Overwrite what a TWO_LEVEL payload says; it was made against the page as of `expect_epoch`.

        Raises InvalidDelta for a payload that does not fit the page, Conflict for another epoch.
        """
        self.commit.expect(page_id(page), expect_epoch)
        self.commit.apply_delta(page_id(page), payload)

    def resize(self, page: int | Page, size_bytes: int) -> None:
        """Give a page another size: what fits is kept, the rest is zero.

        Raises PageNotFound, OutOfSpace, InvalidDelta for a size below 1.
        """
        self.commit.resize(page_id(page), size_bytes)

    def clone(self, page: int | Page, *, name: str = "") -> int:
        """Add a page with the same bytes, elements and metadata, under another name; return its id.

        Raises PageNotFound, OutOfSpace.
        """
        number = page_id(page)
        facts = self.commit.facts(number)
        meta = self._store.meta_of(number)
        meta.pop("name", None)
        if name:
            meta["name"] = name
        image = self.commit.image(number)
        made = self.commit.create(
            facts.size_bytes, meta, elem_width=facts.elem_width, location=Location(facts.location)
        )
        self.commit.image(made)[:] = image
        return made

    def move(self, page: int | Page, location: Location, residency: int) -> None:
        """Say where the page's authoritative bytes live from now on. Raises PageNotFound."""
        self.commit.move(page_id(page), location, residency)

    def set_state(self, page: int | Page, state: PageState) -> None:
        """Give a page another state. Raises PageNotFound."""
        self.commit.set_state(page_id(page), state)

    def set_meta(self, page: int | Page, **values: MetaValue) -> None:
        """Set or, with None, remove entries of a page's metadata. Raises PageNotFound, OutOfSpace."""
        number = page_id(page)
        meta = {**self._store.meta_of(number), **values}
        self.commit.set_meta(number, {key: value for key, value in meta.items() if value is not None})

    def mark(self, name: str) -> None:
        """Name this commit, to find it again."""
        self.commit.mark(name)


def page_id(page: int | Page) -> int:
    """Return the id of a page or of its handle."""
    return page.id if isinstance(page, Page) else page
