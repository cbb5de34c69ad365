"""Building the graph of derived pages: edges and derivations come, go, are kept in the store and told to the engine.

No change of the graph begins a wave, and no wave runs on a graph that changes.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from stoker.core.errors import UsageError
from stoker.kernels.waves import NEVER, NodeKind, WaveEngine, wave_engine
from stoker.pages.batch import page_id
from stoker.pages.capture.canonical import code_digest
from stoker.pages.errors import PageNotFound, PagesError
from stoker.pages.frames import PageState
from stoker.pages.graph.calling import Caller, native_form
from stoker.pages.graph.edges import DependencyGraph, Edge, EdgeKind
from stoker.pages.graph.keeping import GraphKeeper
from stoker.pages.graph.nodes import BUILT_IN, Derivation, Function
from stoker.pages.graph.plain_waves import PlainWaves
from stoker.pages.page import Page
from stoker.pages.store import Store

SOURCE: Final = "propagation"
_MARKING: Final = (EdgeKind.CONTROL, EdgeKind.ARTEFACT)


class Building:
    """The graph of one store's pages and how they are made. `Propagation` runs it.

    engine  what runs the waves; the native one by default, its plain twin where there are no native kernels
    """

    def __init__(self, store: Store, engine: WaveEngine | None = None) -> None:
        self.store = store
        arena = store.arena
        self._engine = engine or wave_engine(arena.mapping.address, arena.geometry.arena_bytes) or PlainWaves(arena)
        self._keeper = GraphKeeper(store)
        self.graph = DependencyGraph(self._keeper.edges())
        self._derivations = self._keeper.derivations()
        self._functions: dict[str, Function] = dict(BUILT_IN)
        self._caller = Caller(arena, self._engine, self._functions)
        self._pending: dict[int, list[int]] = {}  # derivations that the engine was not told: epochs made from
        self._errors: dict[int, Exception] = {}
        self._all_native = False
        self._lock = threading.RLock()
        self._makers: set[int] = set()  # threads that make pages
        self._unheard_of: set[int] = set()  # threads whose commits begin no wave

    def _restore(self) -> None:
        """Take up what the store kept: pages that went meanwhile are forgotten, what is up to date stays so."""
        kept = self._keeper.signatures()
        for page, node in self._derivations.items():
            seen = kept.get(page, {})
            self._pending[page] = [seen.get(source, NEVER) for source in node.inputs]
        self._take_up_killed()
        gone = [page for page in {*self.graph.nodes(), *self._derivations} if not self._is_there(page)]
        if gone:
            self._forget(sorted(gone))
        self._note(self.graph.nodes())

    def _take_up_killed(self) -> None:
        """Find pages whose maker was killed in a process: they are stale, and are made by the next wave."""
        arena = self.store.arena
        with arena.lock.held():
            killed = arena.readers.killed()
        pages = sorted({page for page in killed.values() if page in self._derivations and self._is_there(page)})
        for page in pages:
            self._pending[page] = [NEVER] * len(self._derivations[page].inputs)
        sound = [page for page in pages if arena.facts(page).state != PageState.QUARANTINED]
        if sound:
            self._set_stale(sound)
        for line in killed:  # only now: who is killed before leaves them to the next
            arena.withdraw(line)

    def _is_there(self, page: int) -> bool:
        try:
            self.store.arena.facts(page)
        except PageNotFound:
            return False
        return True

    def _signatures(self) -> dict[int, dict[int, int]]:
        with self._exclusive():
            self._sync()
            found = {}
            for page, node in self._derivations.items():
                seen = self._engine.seen(page)
                if page not in self._errors and all(epoch < NEVER for epoch in seen):
                    found[page] = dict(zip(node.inputs, seen, strict=True))
            return found

    def _is_making(self) -> bool:
        """Tell whether this thread is inside a function that a wave calls."""
        thread = threading.get_ident()
        return thread in self._makers or self._engine.maker() == thread

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the graph and its engine. Raises UsageError in the functions that a wave calls."""
        if self._is_making():
            raise inside_a_wave()
        with self._lock:
            self._engine.hold(1)
            try:
                yield
            finally:
                self._engine.hold(-1)

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Commit something that begins no wave and is told otherwise."""
        thread = threading.get_ident()
        outer = thread in self._unheard_of
        self._unheard_of.add(thread)
        try:
            yield
        finally:
            if not outer:
                self._unheard_of.discard(thread)

    def link(self, parent: int | Page, child: int | Page, kind: EdgeKind = EdgeKind.DATA) -> None:
        """Add an edge, logged. Raises CycleError, PageNotFound, UsageError inside a wave."""
        edge = (page_id(parent), page_id(child), int(kind))
        for page in edge[:2]:
            self.store.arena.facts(page)
        with self._exclusive():
            if self.graph.add(*edge):
                self._note(edge[:2])
                self._keeper.append([edge], add=True)

    def link_all(self, edges: Sequence[Edge]) -> int:
        """Add edges as one commit, all or none, and return how many are new. Raises CycleError, UsageError."""
        with self._exclusive():
            fresh = [edge for edge in dict.fromkeys(edges) if not self.graph.has(*edge)]
            added = self.graph.add_all(fresh)
            self._note(page for edge in fresh for page in edge[:2])
            self._keeper.append(fresh, add=True)
            return added

    def _note(self, pages: Iterable[int]) -> None:
        """Let the engine see from now on what changes in pages; their edges are told before the next wave."""
        for page in dict.fromkeys(pages):
            self._engine.node(page, self.graph.height(page))

    def unlink(self, parent: int | Page, child: int | Page, kind: EdgeKind = EdgeKind.DATA) -> bool:
        """Remove an edge, logged; tell whether it was there. Raises UsageError inside a wave."""
        edge = (page_id(parent), page_id(child), int(kind))
        with self._exclusive():
            found = self.graph.remove(*edge)
            if found:
                self._keeper.append([edge], add=False)
            return found

    def bind(self, name: str, function: Function) -> None:
        """Give a registered name its function, after a restart or before `derive`. Raises UsageError for our names.

        Pages that were made by a function with other code are out of date.
        """
        if name in BUILT_IN:
            raise UsageError("name of a recompute is one of ours", got=name)
        with self._exclusive():
            self._bind(name, function, code_digest(function))

    def _bind(self, name: str, function: Function, digest: str) -> None:
        self._functions[name] = function
        self._caller.forget()
        users = [node for node in self._derivations.values() if node.function == name and node.digest != digest]
        for node in users:
            self._derivations[node.page] = Derivation(node.page, node.inputs, name, digest, node.parameters, node.lazy)
            self._pending[node.page] = [NEVER] * len(node.inputs)
        if users:
            self._keeper.save_derivations(self._derivations)

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
        """Make page `out` by a function of other pages from now on. It is stale, unless it was made so already.

        function    one of `BUILT_IN` by name (passthrough, cast, sum, max, min, count, concat, hash), a bound name, or
                    a callable f(inputs, out, **parameters); it depends on its inputs alone
        name        under which the callable is registered; its qualified name by default
        lazy        CONTROL edges: made on `refresh`, not in waves
        Raises CycleError, PageNotFound, UsageError.
        """
        self.derive_all([(function, inputs, out, parameters)], name=name, lazy=lazy)

    def derive_all(
        self,
        derivations: Iterable[tuple[Function | str, Sequence[int | Page], int | Page, dict[str, int | str]]],
        *,
        name: str = "",
        lazy: bool = False,
    ) -> None:
        """Do as `derive` for many pages in few commits: (function, inputs, out, parameters) each. Raises as it does,
        UsageError for one that cannot be."""
        made = []
        with self._exclusive():
            for function, inputs, out, parameters in derivations:
                chosen, digest = self._named(function, name)
                sources = [page_id(one) for one in inputs]
                for source in (*sources, page_id(out)):
                    self.store.arena.facts(source)
                made.append(Derivation(page_id(out), sources, chosen, digest, parameters, lazy))
            kind = int(EdgeKind.CONTROL if lazy else EdgeKind.DATA)
            self.link_all([(source, node.page, kind) for node in made for source in node.inputs])
            fresh = [node for node in made if self._derivations.get(node.page) != node]
            self._unlink_old(fresh)
            for node in fresh:
                self._derivations[node.page] = node
                self._pending[node.page] = [NEVER] * len(node.inputs)
                self._caller.drop(node.page)
            if fresh:
                self._keeper.save_derivations(self._derivations)
                self._set_stale([node.page for node in fresh])

    def _unlink_old(self, fresh: Sequence[Derivation]) -> None:
        """Remove edges from what pages were made of before and are no more."""
        gone = []
        for node in fresh:
            old = self._derivations.get(node.page)
            kind = int(EdgeKind.CONTROL if old and old.lazy else EdgeKind.DATA)
            kept = node.inputs if old and old.lazy == node.lazy else []
            gone += [(source, node.page, kind) for source in (old.inputs if old else []) if source not in kept]
        removed = [edge for edge in dict.fromkeys(gone) if self.graph.remove(*edge)]
        self._keeper.append(removed, add=False)

    def _named(self, function: Function | str, name: str) -> tuple[str, str]:
        """Return the name and the digest of a function, bound."""
        if isinstance(function, str):
            if function not in self._functions:
                raise UsageError("unknown recompute", expected=", ".join(sorted(self._functions)), got=function)
            bound = self._functions[function]
            return function, "" if function in BUILT_IN else code_digest(bound)
        chosen = name or getattr(function, "__qualname__", "function")
        if chosen in BUILT_IN:
            raise UsageError("name of a recompute is one of ours", got=chosen)
        digest = code_digest(function)
        self._bind(chosen, function, digest)
        return chosen, digest

    def _set_stale(self, pages: Sequence[int]) -> None:
        with self._unheard(), self.store.batch(source=SOURCE) as batch:
            for page in pages:
                batch.set_state(page, PageState.STALE)

    def _forget(self, pages: Sequence[int]) -> None:
        """Take pages that were freed out of the graph; pages that are made from them fail until they are derived anew.

        What the store keeps of the graph follows.
        """
        gone, edges = set(pages), []
        for page in pages:
            edges += self.graph.forget(page)
            self._engine.forget(page)
            self._pending.pop(page, None)
            self._errors.pop(page, None)
        kept = {page: node for page, node in self._derivations.items() if page not in gone}
        for page, node in kept.items():
            if not gone.isdisjoint(node.inputs):
                self._pending[page] = [NEVER] * len(node.inputs)
        self._caller.forget(*pages)
        self._keeper.append(sorted(set(edges)), add=False)
        if len(kept) != len(self._derivations):
            self._derivations.clear()
            self._derivations.update(kept)
            self._keeper.save_derivations(kept)

    def _sync(self) -> None:
        """Tell the engine what changed in the graph since the last wave: a wave runs on a graph that stands."""
        graph, engine = self.graph, self._engine
        if not graph.touched and not self._pending:
            return
        for page in graph.touched:
            engine.node(page, graph.height(page))
        for page in graph.touched:
            marked = {child for kind in _MARKING for child in graph.children(page, kind)}
            engine.edges(page, graph.children(page, EdgeKind.DATA), sorted(marked))
        graph.touched.clear()
        for page, seen in self._pending.items():
            node = self._derivations[page]
            for one in (page, *node.inputs):
                engine.node(one, graph.height(one))
            kind, element, offset = native_form(node)
            engine.derive(page, kind, element, offset, node.lazy, node.inputs, seen)
        self._pending.clear()
        self._all_native = all(
            node.lazy or native_form(node)[0] != NodeKind.CALLED for node in self._derivations.values()
        )


def inside_a_wave() -> UsageError:
    """Return the error for a page's function that changes the graph or begins a wave."""
    return UsageError("graph does not change while a wave makes its pages", remedy="change it after the wave")


class ClosedEngine:
    """What stands for the engine of a closed graph, whose memory may be gone. Every use of it raises PagesError."""

    @staticmethod
    def maker() -> int:
        """Return 0: nobody makes pages any more."""
        return 0

    def __getattr__(self, name: str) -> NoReturn:
        """Raise."""
        raise PagesError("graph of pages is closed", remedy="open the store, or make another Propagation")
