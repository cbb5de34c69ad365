"""The engine of waves in Python: the plain twin of `native/src/wave.cpp`, with the same pages, epochs and reports.

It calls every derived page, the built-in functions too, and leaves every commit to the long way.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.kernels.waves import GONE, NEVER, Fill, NodeKind, WaveStep
from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Word
from stoker.pages.errors import PageNotFound, Quarantined
from stoker.pages.frames import FrameType, PageState, parts_of

_ATTEMPTS: Final = 8
_HISTORY: Final = 16
_CHANGING: Final = (FrameType.RESIZE, FrameType.DELTA, FrameType.IMAGE)
Bytes = NDArray[np.uint8]


class PlainReport(msgspec.Struct):
    """As `stoker.kernels.waves.WaveReport`."""

    lsn: int = 0
    changed: list[int] = []
    recomputed: list[int] = []
    unchanged: list[int] = []
    failed: list[int] = []
    stale: list[int] = []
    marked: list[int] = []


class _Node:
    """A page of the graph."""

    __slots__ = ("derived", "epoch", "height", "history", "inputs", "lazy", "marked", "pushed", "seen")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.height = 0
        self.derived = self.lazy = False
        self.pushed: list[int] = []
        self.marked: list[int] = []
        self.inputs: list[int] = []
        self.seen: list[int] = []
        self.history: list[tuple[int, int]] = []


class PlainWaves:
    """As `stoker.kernels.waves.WaveEngine`."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._nodes: dict[int, _Node] = {}
        self._mirrors: dict[int, Bytes] = {}
        self._outputs: dict[int, Bytes] = {}
        self._position = -1
        self._dirty: dict[int, None] = {}
        self._late: dict[int, None] = {}  # changed while a wave is under way: for the next
        self._due: dict[int, None] = {}
        self._gone: dict[int, None] = {}
        self._running = False
        self._only: list[int] | None = None
        self._attempts = self._lsn = 0
        self._begin_empty()

    def _begin_empty(self) -> None:
        self._torn = False
        self._waiting: dict[int, list[int]] = {}
        self._queued: set[int] = set()
        self._read: set[int] = set()
        self._blocked: set[int] = set()
        self._images: dict[int, Bytes] = {}
        self._unchanged: list[int] = []
        self._failed: list[int] = []
        self._stale: list[int] = []
        self._marked: list[int] = []
        self._states: list[tuple[int, int]] = []
        self._calls: list[int] = []
        self._begun_by: list[int] = []

    # -- the graph -----------------------------------------------------------------------------------------------

    def node(self, page: int, height: int) -> None:
        """Add a page, or give it another height."""
        if page not in self._nodes:
            self._nodes[page] = _Node(self._epoch(page))
        self._nodes[page].height = height

    def edges(self, page: int, pushed: Sequence[int], marked: Sequence[int]) -> None:
        """Tell which pages are made anew when this one changes, and which become stale."""
        node = self._nodes[page]
        node.pushed, node.marked = list(pushed), list(marked)

    def derive(
        self, page: int, kind: int, element: int, offset: int, lazy: bool, inputs: Sequence[int], seen: Sequence[int]
    ) -> None:
        """Tell how a page is made; every kind is called here."""
        node = self._nodes[page]
        node.derived, node.lazy, node.inputs = kind != NodeKind.SOURCE, lazy, list(inputs)
        node.seen = list(seen) or [NEVER] * len(inputs)
        self._due[page] = None

    def forget(self, page: int) -> None:
        """Take a page out."""
        for found in (self._nodes, self._gone, self._due, self._mirrors, self._outputs, self._dirty, self._late):
            found.pop(page, None)

    def seen(self, page: int) -> list[int]:
        """Return the epochs of the inputs that the page was last made from."""
        return list(self._nodes[page].seen)

    def out_of_date(self, page: int) -> bool:
        """Tell whether inputs changed since the page was made."""
        node = self._nodes.get(page)
        return node is not None and node.derived and self._needed(node)

    def _epoch(self, page: int) -> int:
        try:
            return self._arena.facts_at(self._arena.table.find(page)).epoch
        except PageNotFound:
            return GONE

    def _known(self, page: int) -> int:
        node = self._nodes.get(page)
        return GONE if node is None else node.epoch

    # -- what was committed since --------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Learn what was committed since; the store's lock is held."""
        words = self._arena.words
        end = int(words[Word.COMMITTED_POS])
        if self._position < words[Word.FLOOR_POS]:
            for page, node in list(self._nodes.items()):
                node.history.clear()
                if (epoch := self._epoch(page)) != node.epoch:
                    self._touched(page, epoch, -1)
        else:
            for page, epoch, position in self._changed(end):
                self._touched(page, epoch, position)
        self._position = end

    def _changed(self, end: int) -> Iterator[tuple[int, int, int]]:
        ring, position = self._arena.ring, self._position
        for frame in ring.frames(position, end):
            position = ring.skip(position)
            for part in parts_of(frame):
                if part.type == FrameType.FREE:
                    yield part.page, GONE, position
                elif part.type in _CHANGING:
                    yield part.page, part.epoch, position
            position += ring.length_at(position)

    def _touched(self, page: int, epoch: int, position: int) -> None:
        node = self._nodes.get(page)
        if node is None or (epoch <= node.epoch != GONE and epoch != GONE):
            return
        if epoch == GONE and node.epoch != GONE:
            self._gone[page] = None
        self._torn |= page in self._read
        (self._late if self._running else self._dirty)[page] = None
        self._learn(node, epoch, position)

    @staticmethod
    def _learn(node: _Node, epoch: int, position: int) -> None:
        node.epoch = epoch
        if position >= 0:
            node.history = [*node.history[1 - _HISTORY :], (epoch, position)]

    # -- a wave --------------------------------------------------------------------------------------------------

    def advance(self, source: int, only: Sequence[int] | None) -> PlainReport | int:
        """Go on with the wave under way, or begin one; return its report, or what it waits for."""
        with self._arena.lock.held():
            if not self._running:
                self.catch_up()
                if self._gone:
                    return WaveStep.GONE
                self._only = None if only is None else [page for page in only if page in self._nodes]
                self._attempts, self._running = 1, True
                self._begin()
            elif not self.steady():
                self._attempts += 1
                if self._gone or self._attempts > _ATTEMPTS:
                    self.abandon()
                    return WaveStep.GONE if self._gone else WaveStep.UNSTEADY
                self._begin()
            return self._drain()

    def _begin(self) -> None:
        self._begin_empty()
        self._dirty.update(self._late)
        self._late = {}
        self._begun_by = list(self._dirty)
        for page in self._dirty:
            self._queue_below(page)
        for page in [*self._due, *(self._only or ())]:
            self._queue(page)

    def _queue(self, page: int) -> None:
        node = self._nodes.get(page)
        if node is None or not node.derived or page in self._queued:
            return
        if node.lazy if self._only is None else page not in self._only:
            return
        self._queued.add(page)
        self._waiting.setdefault(node.height, []).append(page)

    def _queue_below(self, page: int) -> None:
        node = self._nodes[page]
        for child in node.pushed if self._only is None else [*node.pushed, *node.marked]:
            self._queue(child)

    def _drain(self) -> PlainReport | int:
        self._calls = []
        while self._waiting:
            for page in sorted(self._waiting.pop(min(self._waiting))):
                self._visit(page)
            if self._calls:
                return WaveStep.CALL
        self._mark_below()
        self._collect_states()
        if self._images or self._states:
            return WaveStep.SLOW
        self.settle(int(self._arena.words[Word.COMMITTED_LSN]))
        return self.report()

    def _visit(self, page: int) -> None:
        node = self._nodes[page]
        if any(one in self._blocked for one in node.inputs):
            self._blocked.add(page)
            self._stale.append(page)
            self._due[page] = None
            self._queue_below(page)
        elif self._needed(node):
            self._calls.append(page)

    def _needed(self, node: _Node) -> bool:
        staged = self._images if self._running else {}
        pairs = zip(node.inputs, node.seen, strict=True)
        return any(self._known(one) != seen or one in staged for one, seen in pairs)

    def quick(self, source: int) -> PlainReport | int:
        """Leave all to `advance`."""
        return WaveStep.BUSY

    def hold(self, more: int) -> None:
        """There is nothing to keep away."""

    def abandon(self) -> None:
        """Drop the wave under way: nothing of it happened."""
        self._running = False
        self._begin_empty()

    def calls(self) -> list[int]:
        """Return the pages that wait to be called, all of one height, by page."""
        return list(self._calls)

    def gone(self) -> list[int]:
        """Return pages of the graph that were freed."""
        return list(self._gone)

    def report(self) -> PlainReport:
        """Return the report of the wave so far."""
        found = (self._begun_by, list(self._images), self._unchanged, self._failed, self._stale, self._marked)
        return PlainReport(self._lsn, *found)

    # -- pages that are called -----------------------------------------------------------------------------------

    def prepare(self, page: int, call: object) -> None:
        """Nothing is called from here."""

    def unprepare(self, page: int) -> None:
        """Nothing was prepared."""

    def make(self) -> list[tuple[int, Exception | None]] | None:
        """Leave every page to be called by who asks."""
        return [(page, None) for page in self._calls]

    def tell(self, word: int) -> None:
        """Nothing is called from here."""

    def maker(self) -> int:
        """Nobody goes a short way here."""
        return 0

    def mirror(self, page: int, array: NDArray[Any]) -> None:
        """Give the memory that holds what a page is, for those that are called with it."""
        self._mirrors[page] = array

    def output(self, page: int, array: NDArray[Any]) -> None:
        """Give the memory that a called page is made in."""
        self._outputs[page] = array

    def fill(self, page: int) -> int:
        """Bring the mirrors of a page's inputs and its output up to date."""
        for one in self._nodes[page].inputs:
            self._read.add(one)
            if (filled := self._copy(one, self._mirrors.get(one), self._images.get(one))) != Fill.DONE:
                return filled
        self._read.add(page)
        return self._copy(page, self._outputs.get(page), None)

    def _copy(self, page: int, into: Bytes | None, staged: Bytes | None) -> Fill:
        try:
            facts, data = self._arena.read(page)
        except (PageNotFound, Quarantined):
            return Fill.MISSING
        data = data if staged is None else staged
        if into is None or into.size != data.size:
            return Fill.RESIZE
        into[:] = data
        return Fill.DONE if facts.epoch == self._known(page) else Fill.CHANGED

    def give(self, page: int) -> None:
        """Take what was made in the page's output."""
        try:
            _, now = self._arena.read(page)
        except (PageNotFound, Quarantined):
            self._torn = True
            return
        made = self._outputs[page]
        if made.size != now.size:
            self._torn = True
        elif np.array_equal(now, made):
            self._unchanged.append(page)
        else:
            self._images[page] = made.copy()
            self._queue_below(page)

    def fail(self, page: int) -> None:
        """Say that a page could not be made."""
        self._read.add(page)
        self._blocked.add(page)
        self._failed.append(page)
        self._due[page] = None
        self._queue_below(page)

    def changes(self, page: int, input_page: int) -> tuple[bool, list[int]] | None:
        """Return what led from the input as it was when the page was last made to what it is."""
        node, source = self._nodes[page], self._nodes[input_page]
        seen = node.seen[node.inputs.index(input_page)]
        if seen >= NEVER or source.epoch == GONE or seen > source.epoch:
            return None
        found = [position for epoch, position in source.history if epoch > seen]
        return (input_page in self._images, found) if len(found) == source.epoch - seen else None

    # -- committing ----------------------------------------------------------------------------------------------

    def steady(self) -> bool:
        """Tell whether nobody changed what the wave has read; the store's lock is held."""
        self.catch_up()
        return not self._torn and not self._gone

    def staged(self) -> list[tuple[int, bytes]]:
        """Return the new bytes of pages that the wave made."""
        return [(page, image.tobytes()) for page, image in self._images.items()]

    def states(self) -> list[tuple[int, int]]:
        """Return pages whose state the wave changes."""
        return list(self._states)

    def _mark_below(self) -> None:
        done = {*self._images, *self._unchanged, *self._blocked}
        for parent in [*self._images, *self._dirty, *self._late]:
            for child in self._nodes[parent].marked:
                if child not in done and not self._made_since(parent, child):
                    done.add(child)
                    self._marked.append(child)
        self._marked.sort()

    def _made_since(self, parent: int, child: int) -> bool:
        node = self._nodes.get(child)
        if node is None:
            return True
        pairs = zip(node.inputs, node.seen, strict=True)
        return parent not in self._images and node.derived and (parent, self._known(parent)) in pairs

    def _collect_states(self) -> None:
        stale = [*self._failed, *self._stale, *self._marked]
        wanted = [*((page, PageState.STALE) for page in stale), *((page, PageState.CLEAN) for page in self._unchanged)]
        self._states = []
        for page, state in wanted:
            if self._epoch(page) == GONE:
                continue
            if self._arena.facts_at(self._arena.table.find(page)).state not in {state, PageState.QUARANTINED}:
                self._states.append((page, int(state)))

    def settle(self, lsn: int) -> None:
        """Say that the wave is committed; the store's lock is held."""
        self._lsn, self._running = lsn, False
        end = int(self._arena.words[Word.COMMITTED_POS])
        for page, epoch, position in list(self._changed(end)):
            if page in self._nodes:
                self._learn(self._nodes[page], epoch, position)
        self._position = end
        made = {*self._images, *self._unchanged}
        for page in made:
            node = self._nodes[page]
            node.seen = [self._known(one) for one in node.inputs]
        whole = self._only is None
        waiting = [page for page in self._due if page not in made]
        self._due = {page: None for page in waiting if not whole or self._needed(self._nodes[page])}
        self._dirty = self._late if whole else {**self._dirty, **self._late}
        self._late = {}
        self._read = set()
