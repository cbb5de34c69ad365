"""What is told of commits and waves: events to subscribers and to the log, device copies that must be refreshed."""

from collections.abc import Callable, Iterator, Sequence

from stoker.core.clock import wall_ns
from stoker.kernels.waves import WaveReport
from stoker.pages.errors import PageNotFound
from stoker.pages.frames import FrameType
from stoker.pages.graph.edges import DependencyGraph, EdgeKind
from stoker.pages.graph.events import Event, EventKind, Subscriptions, encode_event
from stoker.pages.store import Store

DeviceHook = Callable[[Sequence[tuple[int, int]]], Callable[[], None] | None]
"""Called once a wave with (parent, child) pairs whose device copies must be refreshed, parents first.

It may only begin the copies, and return a barrier: that is called, and must wait for them, before the wave returns.
"""


class Teller:
    """Tells what happened in one store.

    kept  kinds of events that go into the store's log
    """

    def __init__(self, store: Store, graph: DependencyGraph) -> None:
        self._store = store
        self._graph = graph
        self.events = Subscriptions()
        self.kept: frozenset[int] = frozenset()
        self.device_hook: DeviceHook | None = None

    @property
    def wanted(self) -> bool:
        """Tell whether anybody wants to know."""
        return bool(self.kept) or self.device_hook is not None or len(self.events) > 0

    def tell_commit(self, lsn: int, pages: Sequence[int]) -> None:
        """Tell of a commit that was no wave."""
        if pages and (self.kept or len(self.events)):
            self._emit(list(self._page_events(lsn, pages)))

    def tell_wave(self, report: WaveReport) -> None:
        """Tell of a wave, once its pages are committed: device copies first asked for, and waited for at the end."""
        if not self.wanted:
            return
        changed = [*report.changed, *report.recomputed]
        pairs = self._below(changed, EdgeKind.DEVICE)
        lsn, now_ns = report.lsn, wall_ns()
        told = list(self._page_events(lsn, report.recomputed))
        stale = sorted({*report.marked, *report.failed, *report.stale})
        told += [Event(EventKind.PAGE_STALE, page, 0, lsn, now_ns) for page in stale]
        artefacts = sorted({child for _, child in self._below(changed, EdgeKind.ARTEFACT)})
        told += [Event(EventKind.IR_INVALIDATED, page, 0, lsn, now_ns) for page in artefacts]
        told += [Event(EventKind.GPU_SYNC_NEEDED, child, 0, lsn, now_ns) for _, child in pairs]
        self._emit(told)
        barrier = self.device_hook(pairs) if pairs and self.device_hook else None
        if barrier:
            barrier()
            self._emit([Event(EventKind.GPU_SYNC_COMPLETE, child, 0, lsn, wall_ns()) for _, child in pairs])

    def _below(self, pages: Sequence[int], kind: EdgeKind) -> list[tuple[int, int]]:
        order = self._graph.order(dict.fromkeys(pages))
        return [(page, child) for page in order for child in self._graph.children(page, kind)]

    def _page_events(self, lsn: int, pages: Sequence[int]) -> Iterator[Event]:
        now_ns = wall_ns()
        for page in self._graph.order(pages):
            try:
                facts = self._store.arena.facts(page)
            except PageNotFound:
                yield Event(EventKind.PAGE_DELETED, page, 0, lsn, now_ns)
                continue
            if facts.created_lsn and facts.created_lsn > lsn - len(pages) and facts.epoch == 0:
                yield Event(EventKind.PAGE_CREATED, page, 0, lsn, now_ns)
                continue
            for kind in (EventKind.PAGE_INVALIDATED, EventKind.DELTA_APPLIED, EventKind.PAGE_CHANGED):
                yield Event(kind, page, facts.epoch, lsn, now_ns)

    def _emit(self, events: Sequence[Event]) -> None:
        kept = [event for event in events if event.kind in self.kept]
        if kept:
            with self._store.batch(source="events") as batch:
                for event in kept:
                    batch.commit.record(FrameType.EVENT, encode_event(event))
        self.events.emit(events)
