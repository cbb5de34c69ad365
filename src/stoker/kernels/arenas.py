"""The short ways through an arena of pages: the typed face of the native kernel.

Its plain twin is the long way, `stoker.pages.arena` and `stoker.pages.commits`, which this one leaves everything rare
to. Results are LSNs, ids and epochs, or one of these numbers.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from stoker.kernels.native import native_kernels

SLOW: Final = -1
"""Not for here: the long way decides. Nothing was changed."""
OWNER_DEAD: Final = -2
"""The lock is held, and its last owner died in it."""
CONFLICT: Final = -3
"""Another epoch than expected."""
NOT_FOUND: Final = -4
"""No live page of this id."""


class FastArena(Protocol):
    """What is done without a Python object for each step. Data are contiguous buffers."""

    def write(self, page: int, data: object, expect_epoch: int, source: int) -> int:
        """Replace a page's bytes; -1 expects no epoch. Returns the LSN, the present one where nothing differs."""

    def write_at(self, page: int, offset: int, data: object, expect_epoch: int, source: int) -> int:
        """Overwrite a page's bytes from an offset on. Returns as `write`."""

    def update_many(self, pages: object, rows: object, source: int) -> int:
        """Replace the bytes of pages of one size, uint64 ids and a row each, as one commit. Returns as `write`."""

    def write_each(self, pages: object, rows: object, done: int, source: int) -> tuple[int, int]:
        """Replace the bytes of pages, uint64 ids, from the `done`-th on, as a commit each; rows are a sequence of
        buffers, or one buffer of rows of one size. Goes as far as it can at once; returns how many are done then, and
        the LSN of the last, or the number that the next one came to.
        """

    def allocate(self, size_bytes: int) -> int:
        """Add a page without metadata; returns its id."""

    def release(self, page: int) -> int:
        """Remove a page; returns the LSN."""

    def page_bytes(self, page: int) -> int:
        """Return a page's size, 0 where there is none."""

    def read(self, page: int, out: object) -> int:
        """Copy a page's bytes of one moment to `out`, of its size; returns the epoch."""


class ShortWays(Protocol):
    """The calls of a store of pages that are made millions of times a second, without a Python frame around them.

    ready  whether a commit ends in the arena; else every call goes the store's own way
    """

    ready: bool

    def write(self, page: int, data: object, *, expect_epoch: int | None = None, source: str = "") -> int:
        """Replace a page's bytes; returns the LSN."""

    def allocate_id(self, size_bytes: int) -> int:
        """Add a page without metadata; returns its id."""

    def free_id(self, page: int) -> int:
        """Remove a page; returns the LSN."""


def short_ways(
    arena: FastArena, store: Callable[[], Any], listeners: list[Any], methods: tuple[Callable[..., Any], ...]
) -> ShortWays:
    """Return short ways for a store: where they do not go, they call its own methods.

    store      weak reference to it
    listeners  its list of those who hear of commits: while there are any, commits go its own way
    methods    functions of its class: write, allocate_id, free_id, and what is done after a commit, or after OWNER_DEAD
    """
    native = native_kernels()
    assert native is not None, "an arena of the native kernels has them"
    found: ShortWays = native.ShortWays(arena, store, listeners, methods)
    return found


def fast_arena(address: int, arena_bytes: int) -> FastArena | None:
    """Return the short ways through the arena at an address, None without native kernels.

    Raises ValueError for memory that is no arena. The memory must outlive what is returned.
    """
    native = native_kernels()
    if native is None:
        return None
    found: FastArena = native.PageArena(address, arena_bytes)
    return found


def kill_at(count: int) -> None:
    """Have this process killed at the `count`-th step of a native commit from now; 0 for never."""
    native = native_kernels()
    if native is not None:
        native.arena_kill_at(count)
