"""Waves of derived pages: the typed face of the native engine.

Its plain twin is `stoker.pages.graph.plain_waves`. Both hold the graph by pages, see what was committed since the last
wave, visit what depends on it, and hand out the pages that only Python can make.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from stoker.kernels.native import native_kernels

NEVER: Final = 2**64 - 2
"""The epoch that no page has: not made yet."""
GONE: Final = 2**64 - 1
"""The epoch of a page that is not there."""


class NodeKind(IntEnum):
    """How a page is made."""

    SOURCE = 0
    CALLED = 1
    PASSTHROUGH = 2
    TO_BFLOAT16 = 3
    SUM = 4
    MAX = 5
    MIN = 6
    COUNT = 7
    CONCAT = 8


ELEMENTS: Final = {
    name: number for number, name in enumerate(("<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f4", "<f8"))
}
"""Numbers of the elements that the native engine folds, by the dtype's name with its order of bytes."""


class WaveStep(IntEnum):
    """What a wave waits for. A wave that is done gives its report instead."""

    DONE = 0
    CALL = 1
    SLOW = 2
    GONE = 3
    UNSTEADY = 4
    BUSY = 5
    NO_LOCK = -1
    OWNER_DEAD = -2


class Fill(IntEnum):
    """What filling the inputs of a page came to."""

    DONE = 0
    RESIZE = 1
    CHANGED = 2
    MISSING = 3


class WaveReport(Protocol):
    """What one wave did, by pages: what began it, what was made anew, came out as it was, failed, or became stale.

    lsn  of its commit, or of the newest one where it changed nothing
    """

    @property
    def lsn(self) -> int:
        """LSN of the commit."""

    @property
    def changed(self) -> list[int]:
        """Pages of the graph that others changed since the wave before, in the order of their commits."""

    @property
    def recomputed(self) -> list[int]:
        """Pages that have new bytes, parents before children."""

    @property
    def unchanged(self) -> list[int]:
        """Pages that were made and came out as they were."""

    @property
    def failed(self) -> list[int]:
        """Pages whose function raised."""

    @property
    def stale(self) -> list[int]:
        """Pages below those that failed."""

    @property
    def marked(self) -> list[int]:
        """Pages that hang on changed ones by edges that only mark."""


class WaveEngine(Protocol):
    """A graph of pages and the wave that goes through it. Used by one thread at a time."""

    def node(self, page: int, height: int) -> None:
        """Add a page, or give it another height."""

    def edges(self, page: int, pushed: Sequence[int], marked: Sequence[int]) -> None:
        """Tell which pages are made anew when this one changes, and which become stale."""

    def derive(
        self, page: int, kind: int, element: int, offset: int, lazy: bool, inputs: Sequence[int], seen: Sequence[int]
    ) -> None:
        """Tell how a page is made, and the epochs of the inputs that it was last made from."""

    def forget(self, page: int) -> None:
        """Take a page out."""

    def seen(self, page: int) -> list[int]:
        """Return the epochs of the inputs that the page was last made from."""

    def out_of_date(self, page: int) -> bool:
        """Tell whether inputs changed since the page was made, as far as is known."""

    def catch_up(self) -> None:
        """Learn what was committed since; the store's lock is held."""

    def advance(self, source: int, only: Sequence[int] | None) -> "WaveReport | int":
        """Go on with the wave under way, or begin one; return its report, or what it waits for."""

    def quick(self, source: int) -> "WaveReport | int":
        """Do a whole wave at once, without the caller's lock; or nothing, and return why `advance` must do it."""

    def hold(self, more: int) -> None:
        """Keep `quick` away (1), or let it come again (-1): as often as it was kept away."""

    def abandon(self) -> None:
        """Drop the wave under way: nothing of it happened."""

    def calls(self) -> list[int]:
        """Return the pages that wait to be called, all of one height, by page."""

    def gone(self) -> list[int]:
        """Return pages of the graph that were freed."""

    def report(self) -> WaveReport:
        """Return the report of the wave so far."""

    def prepare(self, page: int, call: Any) -> None:
        """Have `make` call this for a page: a `stoker.pages.graph.calling.Call`, its mirrors and output given."""

    def unprepare(self, page: int) -> None:
        """Forget what was prepared for a page, if anything was."""

    def make(self) -> "list[tuple[int, Exception | None]] | None":
        """Make the pages that wait to be called, as far as they are prepared; None when that was all.

        Returns pages that are not prepared or could not be filled, with None, and those whose function raised, with
        the exception. Raises what is no Exception.
        """

    def tell(self, word: int) -> None:
        """Tell which word of the arena holds, while `make` calls a function, the page that it makes; 0 for none."""

    def maker(self) -> int:
        """Return the thread that calls functions on the short way, 0 for none."""

    def mirror(self, page: int, array: NDArray[Any]) -> None:
        """Give the memory that holds what a page is, for those that are called with it."""

    def output(self, page: int, array: NDArray[Any]) -> None:
        """Give the memory that a called page is made in."""

    def fill(self, page: int) -> int:
        """Bring the mirrors of a page's inputs and its output up to date."""

    def give(self, page: int) -> None:
        """Take what was made in the page's output."""

    def fail(self, page: int) -> None:
        """Say that a page could not be made."""

    def changes(self, page: int, input_page: int) -> tuple[bool, list[int]] | None:
        """Return what led from the input as it was when the page was last made to what it is: whether this wave makes
        it anew, and where in the ring the frames of commits before begin; None where not all are known.
        """

    def steady(self) -> bool:
        """Tell whether nobody changed what the wave has read; the store's lock is held."""

    def staged(self) -> list[tuple[int, bytes]]:
        """Return the new bytes of pages that the wave made."""

    def states(self) -> list[tuple[int, int]]:
        """Return pages whose state the wave changes."""

    def settle(self, lsn: int) -> None:
        """Say that the wave is committed; the store's lock is held."""


class ShortWaves(Protocol):
    """`stabilize` of a graph without a Python frame around the engine.

    ready   whether nobody must hear of a wave; else every call goes the graph's own way
    calls   whether functions may be called one after the other; else a wave that calls goes the graph's own way
    writer  number of who commits waves
    """

    ready: bool
    calls: bool
    writer: int

    def stabilize(self) -> WaveReport:
        """Do a wave; returns its report."""


def short_waves(
    engine: WaveEngine,
    graph: Callable[[], Any],
    idle: tuple[Any, ...],
    methods: tuple[Callable[..., Any], ...],
    lock: Any,
) -> ShortWaves | None:
    """Return the short way of a graph, None for an engine that is not native.

    graph    weak reference to it
    idle     dicts and lists: while one of them holds anything, waves go the graph's own way
    methods  functions of its class: stabilize; what mends what a dead owner of the lock left, by its WaveStep; what
             goes on with a wave under way, from what `WaveEngine.make` left and the step it came to, or its report
    lock     what the graph holds while waves run
    """
    native = native_kernels()
    if native is None or type(engine) is not native.WaveEngine:
        return None
    found: ShortWaves = native.ShortWaves(engine, graph, idle, methods, lock)
    return found


def wave_engine(address: int, arena_bytes: int) -> WaveEngine | None:
    """Return the native engine over the arena at an address, None without native kernels.

    Raises ValueError for memory that is no arena. The memory must outlive what is returned.
    """
    native = native_kernels()
    if native is None:
        return None
    found: WaveEngine = native.WaveEngine(address, arena_bytes)
    return found
