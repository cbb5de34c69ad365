"""Propagation: derived pages are made anew when what they depend on changed, in waves.

A wave visits the pages that depend on changed ones, lowest first, each at most once: a page with two changed inputs
sees both new. A page that comes out as it was stops the wave there. All pages of a wave become one commit; before it,
the inputs' epochs are compared with those that were read, and the wave is made again when somebody wrote meanwhile.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import numpy as np

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import UsageError
from stoker.pages.batch import page_id
from stoker.pages.capture.canonical import code_digest
from stoker.pages.errors import Conflict, DeriveError, PageNotFound
from stoker.pages.frames import PageState
from stoker.pages.graph.edges import DependencyGraph, Edge, EdgeKind, Pending
from stoker.pages.graph.events import Event, EventKind, Subscriptions
from stoker.pages.graph.keeping import GraphKeeper
from stoker.pages.graph.nodes import BUILT_IN, Bytes, Derivation, Function, Input, checked_output
from stoker.pages.page import Page
from stoker.pages.store import Store

MODES: Final = ("immediate", "deferred")
_ATTEMPTS: Final = 8
_WORTH_A_THREAD_NS: Final = 20_000
DeviceHook = Callable[[Sequence[tuple[int, int]]], None]
"""Called once a wave with (parent, child) pairs whose device copies must be refreshed, parents' waves in order."""


class WaveReport:
    """What one `stabilize` did: pages made anew, those that came out as they were, and those that failed."""

    def __init__(self) -> None:
        self.lsn = 0
        self.recomputed: list[int] = []
        self.unchanged: list[int] = []
        self.failed: list[int] = []
        self.stale: list[int] = []


class Propagation:
    """The graph of one store's pages, and what keeps derived ones up to date. One process stabilizes a store at a time.

    mode     `immediate` runs a wave behind each commit of this process; `deferred` when `stabilize` is called
    workers  threads for pages of one height, used where making one takes longer than handing it over

    Raises UsageError for an unknown mode.
    """

    def __init__(self, store: Store, *, mode: str = "deferred", workers: int = 1) -> None:
        if mode not in MODES:
            raise UsageError("unknown mode of propagation", expected=" or ".join(MODES), got=mode)
        self.store = store
        self.mode = mode
        self.events = Subscriptions()
        self.device_hook: DeviceHook | None = None
        self._keeper = GraphKeeper(store)
        self.graph = DependencyGraph(self._keeper.edges())
        self._derivations = self._keeper.derivations()
        self._functions: dict[str, Function] = dict(BUILT_IN)
        self._seen: dict[int, dict[int, int]] = self._keeper.signatures()
        self._before: dict[int, dict[int, Bytes]] = {}
        self._errors: dict[int, Exception] = {}
        self._cost_ns: dict[int, float] = {}
        self._lock = threading.RLock()
        self._running = False
        self._pool = ThreadPoolExecutor(workers, "stoker-pages-wave") if workers > 1 else None
        store.listeners.append(self._committed)

    @property
    def lock(self) -> threading.RLock:
        """What is held while edges change and waves run."""
        return self._lock

    @property
    def running(self) -> bool:
        """Tell whether a wave is being committed."""
        return self._running

    def close(self) -> None:
        """Stop listening, keep the signatures, end the threads."""
        if self._committed in self.store.listeners:
            self.store.listeners.remove(self._committed)
            self._keeper.save_signatures(self._seen)
        if self._pool:
            self._pool.shutdown()

    # -- building ------------------------------------------------------------------------------------------------

    def link(self, parent: int | Page, child: int | Page, kind: EdgeKind = EdgeKind.DATA) -> None:
        """Add an edge, logged. Raises CycleError, PageNotFound."""
        edge = (page_id(parent), page_id(child), int(kind))
        for page in edge[:2]:
            self.store.arena.facts(page)
        with self._lock:
            if self.graph.add(*edge):
                self._keeper.append([edge], add=True)

    def link_all(self, edges: Sequence[Edge]) -> int:
        """Add edges as one commit, all or none, and return how many are new. Raises CycleError."""
        with self._lock:
            fresh = [edge for edge in dict.fromkeys(edges) if not self.graph.has(*edge)]
            added = self.graph.add_all(fresh)
            self._keeper.append(fresh, add=True)
            return added

    def unlink(self, parent: int | Page, child: int | Page, kind: EdgeKind = EdgeKind.DATA) -> bool:
        """Remove an edge, logged; tell whether it was there."""
        edge = (page_id(parent), page_id(child), int(kind))
        with self._lock:
            removed = self.graph.remove(*edge)
            if removed:
                self._keeper.append([edge], add=False)
            return removed

    def bind(self, name: str, function: Function) -> None:
        """Give a registered name its function, after a restart or before `derive`. Raises UsageError for our names."""
        if name in BUILT_IN:
            raise UsageError("name of a recompute is one of ours", got=name)
        self._functions[name] = function

    def unbound(self) -> list[str]:
        """Return names that pages need and nobody bound in this process."""
        return sorted({node.function for node in self._derivations.values()} - self._functions.keys())

    def derive(
        self,
        function: Function | str,
        inputs: Sequence[int | Page],
        out: int | Page,
        *,
        name: str = "",
        lazy: bool = False,
        **parameters: int | str,
    ) -> None:
        """Make page `out` by a function of other pages from now on, and mark it stale.

        function    one of `BUILT_IN` by name (passthrough, cast, sum, max, min, count, concat, hash), a bound name, or
                    a callable f(inputs, out, **parameters); it depends on its inputs alone
        name        under which the callable is registered; its qualified name by default
        lazy        CONTROL edges: made on `refresh`, not in waves
        Raises CycleError, PageNotFound, UsageError.
        """
        page, sources = page_id(out), [page_id(one) for one in inputs]
        chosen = function if isinstance(function, str) else name or getattr(function, "__qualname__", "function")
        digest = ""
        if not isinstance(function, str):
            self.bind(chosen, function)
            digest = code_digest(function)
        elif chosen not in self._functions:
            raise UsageError("unknown recompute", expected=", ".join(sorted(self._functions)), got=chosen)
        kind = EdgeKind.CONTROL if lazy else EdgeKind.DATA
        with self._lock:
            for source in sources:
                self.store.arena.facts(source)
            self.link_all([(source, page, int(kind)) for source in sources])
            self._derivations[page] = Derivation(page, sources, chosen, digest, parameters, lazy)
            self._seen.pop(page, None)
            self._keeper.save_derivations(self._derivations)
            self._set_state([page], PageState.STALE)

    # -- running -------------------------------------------------------------------------------------------------

    def _committed(self, lsn: int, pages: Sequence[int]) -> None:
        if self._running:
            return
        if len(self.events):
            self.events.emit(self._page_events(lsn, pages))
        if self.mode == "immediate" and any(self.graph.children(page) for page in pages):
            self.stabilize()

    def _page_events(self, lsn: int, pages: Sequence[int]) -> Iterator[Event]:
        now_ns = wall_ns()
        for page in self.graph.order(pages):
            try:
                facts = self.store.arena.facts(page)
            except PageNotFound:
                yield Event(EventKind.PAGE_DELETED, page, 0, lsn, now_ns)
                continue
            if facts.created_lsn and facts.created_lsn > lsn - len(pages) and facts.epoch == 0:
                yield Event(EventKind.PAGE_CREATED, page, 0, lsn, now_ns)
                continue
            for kind in (EventKind.PAGE_INVALIDATED, EventKind.DELTA_APPLIED, EventKind.PAGE_CHANGED):
                yield Event(kind, page, facts.epoch, lsn, now_ns)

    def stabilize(self) -> WaveReport:
        """Make all derived pages that are out of date anew, and return what was done.

        A function that raises leaves its page and all below stale, with the error kept for `require`; others go on.
        Raises Conflict when others write the inputs faster than a wave can be made.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                wave = _Wave(self)
                if wave.run(self._out_of_date()):
                    return wave.report
            raise Conflict("inputs of derived pages change faster than they can be made")

    def refresh(self, page: int | Page) -> WaveReport:
        """Make one page, and what it depends on, up to date, lazy or not. Raises DeriveError when that fails,
        Conflict when the inputs change faster than it can be made."""
        number = page_id(page)
        with self._lock:
            needed = self.graph.ancestors(number) | {number}
            for _ in range(_ATTEMPTS):
                wave = _Wave(self, only=needed)
                due = [one for one in self._derivations if one in needed and self._is_out_of_date(one)]
                if wave.run(due):
                    self.require(number)
                    return wave.report
            raise Conflict("inputs of derived pages change faster than they can be made")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold back waves for a `with` block, then run one."""
        mode, self.mode = self.mode, "deferred"
        try:
            yield
        finally:
            self.mode = mode
        self.stabilize()

    def require(self, page: int | Page) -> None:
        """Raise DeriveError when the page's last recompute failed."""
        error = self._errors.get(page_id(page))
        if error is not None:
            raise DeriveError("page could not be made", where=str(page_id(page)), got=str(error)) from error

    def stale(self) -> list[int]:
        """Return derived pages that are out of date."""
        return [page for page in self.graph.order(self._derivations) if self._is_out_of_date(page)]

    def check_purity(self, page: int | Page, times: int = 3) -> bool:
        """Make a page several times from the same inputs, unwritten; tell whether it always came out the same.

        Raises UsageError when its function is not bound in this process.
        """
        node = self._derivations[page_id(page)]
        made = {bytes(self._make(node, {}, keep=False)[0]) for _ in range(times)}
        return len(made) == 1

    # -- what a wave needs ---------------------------------------------------------------------------------------

    def _out_of_date(self) -> list[int]:
        return [page for page, node in self._derivations.items() if not node.lazy and self._is_out_of_date(page)]

    def _is_out_of_date(self, page: int) -> bool:
        seen = self._seen.get(page)
        if seen is None:
            return True
        node = self._derivations[page]
        return any(self._epoch(source) != seen.get(source) for source in node.inputs)

    def _epoch(self, page: int) -> int:
        try:
            return self.store.arena.facts(page).epoch
        except PageNotFound:
            return -1

    def _make(
        self, node: Derivation, staged: dict[int, Bytes], *, keep: bool = True
    ) -> tuple[Bytes, Bytes, dict[int, int]]:
        """Return a page's new bytes, its bytes now, and the epochs of the inputs that were read."""
        function = self._functions.get(node.function)
        if function is None:
            raise UsageError("recompute is not bound in this process", got=node.function, remedy="bind it")
        before = self._before.get(node.page, {})
        inputs, epochs = [], {}
        for source in node.inputs:
            facts, data = self.store.arena.read(source)
            epochs[source] = facts.epoch
            if source in staged:
                data = staged[source]
            inputs.append(Input(source, data.copy() if source in staged else data, before.get(source)))
        _, now = self.store.arena.read(node.page)
        start_ns = monotonic_ns()
        made = checked_output(function(inputs, now.copy(), **node.parameters), now, node.page)
        if keep:
            spent = monotonic_ns() - start_ns
            self._cost_ns[node.page] = 0.8 * self._cost_ns.get(node.page, spent) + 0.2 * spent
            self._before[node.page] = {one.page: one.data for one in inputs}
        return made, now, epochs

    def _set_state(self, pages: Sequence[int], state: PageState) -> None:
        with self.store.batch(source="propagation") as batch:
            for page in pages:
                batch.set_state(page, state)


class _Wave:
    """One pass over what is out of date; nothing is written before the end."""

    def __init__(self, engine: Propagation, only: set[int] | None = None) -> None:
        self._engine = engine
        self._only = only
        self._staged: dict[int, Bytes] = {}
        self._read: dict[int, int] = {}
        self._failed: dict[int, Exception] = {}
        self._made: list[int] = []
        self._pending = Pending(engine.graph)
        self.report = WaveReport()

    def run(self, due: Sequence[int]) -> bool:
        """Visit pages and what depends on them, and commit; tell whether nobody wrote meanwhile."""
        for page in due:
            self._pending.add(page)
        while level := self._pending.level():
            self._visit([page for page in level if self._wanted(page)])
        return self._commit()

    def _wanted(self, page: int) -> bool:
        node = self._engine._derivations.get(page)
        if node is None or (self._only is not None and page not in self._only):
            return False
        if self._only is None and node.lazy:
            return False
        if any(source in self._failed or source in self.report.stale for source in node.inputs):
            self.report.stale.append(page)
            self._spread(page)
            return False
        changed = any(source in self._staged for source in node.inputs)
        return changed or self._engine._is_out_of_date(page)

    def _visit(self, pages: list[int]) -> None:
        engine = self._engine
        nodes = [engine._derivations[page] for page in pages]
        costly = sum(engine._cost_ns.get(page, 0.0) for page in pages) > _WORTH_A_THREAD_NS * len(pages)
        if engine._pool and len(nodes) > 1 and costly:
            results = list(engine._pool.map(self._try, nodes))
        else:
            results = [self._try(node) for node in nodes]
        for node, result in zip(nodes, results, strict=True):
            self._take(node, result)

    def _try(self, node: Derivation) -> tuple[Bytes, Bytes, dict[int, int]] | Exception:
        try:
            return self._engine._make(node, self._staged)
        except Exception as error:
            return error

    def _take(self, node: Derivation, result: tuple[Bytes, Bytes, dict[int, int]] | Exception) -> None:
        page = node.page
        if isinstance(result, Exception):
            self._failed[page] = result
            self.report.failed.append(page)
            self._spread(page)
            return
        made, now, epochs = result
        self._read.update(epochs)
        self._made.append(page)
        if np.array_equal(made, now):
            self.report.unchanged.append(page)
            return
        self._staged[page] = made
        self.report.recomputed.append(page)
        self._spread(page)

    def _spread(self, page: int) -> None:
        for child in self._engine.graph.children(page, EdgeKind.DATA):
            self._pending.add(child)

    def _commit(self) -> bool:
        engine, store = self._engine, self._engine.store
        controlled = self._below(EdgeKind.CONTROL) | self._below(EdgeKind.ARTEFACT)
        stale = sorted({*self._failed, *self.report.stale, *controlled} - set(self._staged))
        engine._running = True
        try:
            with store.batch(source="propagation") as batch:
                if any(batch.commit.facts(page).epoch != epoch for page, epoch in self._read.items()):
                    return False
                for page in engine.graph.order(self._staged):
                    batch.write(page, self._staged[page])
                for page in stale:
                    batch.set_state(page, PageState.STALE)
                for page in self.report.unchanged:
                    batch.set_state(page, PageState.CLEAN)
        finally:
            engine._running = False
        self.report.lsn = batch.lsn
        self._remember()
        self._tell(controlled)
        return True

    def _below(self, kind: EdgeKind) -> set[int]:
        """Return pages that hang by edges of a kind on what was changed: by this wave, or before it."""
        graph = self._engine.graph
        moved = {page for page in graph.nodes() if self._moved(page)} if kind == EdgeKind.CONTROL else set()
        return {child for page in {*self._staged, *moved} for child in graph.children(page, kind)}

    def _moved(self, page: int) -> bool:
        """Tell whether a page changed since its lazy children were made."""
        engine = self._engine
        children = [child for child in engine.graph.children(page, EdgeKind.CONTROL) if child not in self._made]
        return any(engine._seen.get(child, {}).get(page, -2) != engine._epoch(page) for child in children)

    def _remember(self) -> None:
        engine = self._engine
        for page in self._made:
            engine._errors.pop(page, None)
            engine._seen[page] = {source: engine._epoch(source) for source in engine._derivations[page].inputs}
        engine._errors.update(self._failed)

    def _tell(self, controlled: set[int]) -> None:
        engine = self._engine
        pairs = [
            (page, child)
            for page in engine.graph.order(self._staged)
            for child in engine.graph.children(page, EdgeKind.DEVICE)
        ]
        if len(engine.events):
            lsn, now_ns = self.report.lsn, wall_ns()
            engine.events.emit(engine._page_events(lsn, list(self._staged)))
            stale = sorted({*controlled, *self._failed, *self.report.stale})
            engine.events.emit(Event(EventKind.PAGE_STALE, page, 0, lsn, now_ns) for page in stale)
            artefacts = sorted(self._below(EdgeKind.ARTEFACT))
            engine.events.emit(Event(EventKind.IR_INVALIDATED, page, 0, lsn, now_ns) for page in artefacts)
            engine.events.emit(Event(EventKind.GPU_SYNC_NEEDED, child, 0, lsn, now_ns) for _, child in pairs)
        if pairs and engine.device_hook:
            engine.device_hook(pairs)
