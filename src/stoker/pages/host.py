"""What handles and batches want of the store they belong to."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stoker.pages.arena.arena import Arena
from stoker.pages.commits import Commit
from stoker.pages.images import Meta, MetaValue

Data = ArrayLike | bytes | bytearray | memoryview


class PageHost(Protocol):
    """The store behind a page; `stoker.pages.store.Store` is it. Each method tells its errors there."""

    name: str
    arena: Arena

    def check_open(self) -> None:
        """Raise PagesError unless the store can be used."""

    def new_commit(self, source: str) -> Commit:
        """Begin a commit; the lock is held."""

    def committed(self, lsn: int, pages: list[int], durability: str) -> None:
        """Do what follows a commit."""

    def meta_of(self, page: int) -> Meta:
        """Return a page's metadata."""

    def read(self, page: int, out: Any = None) -> NDArray[np.uint8]:
        """Return a copy of a page's bytes."""

    def write(self, page: int, data: Data, *, expect_epoch: int | None = None, source: str = "") -> int:
        """Replace all bytes of a page."""

    def write_at(self, page: int, offset: int, data: Data, *, expect_epoch: int | None = None, source: str = "") -> int:
        """Overwrite bytes of a page."""

    def resize(self, page: int, size_bytes: int) -> int:
        """Give a page another size."""

    def clone(self, page: int, *, name: str = "") -> int:
        """Copy a page; return the new id."""

    def free(self, page: int) -> int:
        """Remove a page."""

    def move_to(self, page: int, device: str, *, mode: str = "device") -> int:
        """Put a copy of a page on a device, or take it back to the host."""

    def set_meta(self, page: int, **values: MetaValue) -> int:
        """Set entries of a page's metadata."""
