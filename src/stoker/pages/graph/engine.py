"""Propagation: derived pages are made anew when what they depend on changed, in waves.

A wave visits the pages that depend on changed ones, lowest first, each at most once: a page with two changed inputs
sees both new. A page that comes out as it was stops the wave there. All pages of a wave become one commit; before it,
the log is searched for commits of others to what the wave read, and the wave is made again when there was one. What
changed is told by that log too, so a wave costs what changed, not what there is.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, cast

import numpy as np

from stoker.core.clock import monotonic_ns
from stoker.core.errors import UsageError
from stoker.kernels.waves import WaveEngine, WaveReport, WaveStep, short_waves
from stoker.pages.arena.layout import COMPUTED, Reader
from stoker.pages.batch import page_id
from stoker.pages.errors import Conflict, DeriveError
from stoker.pages.frames import PageState
from stoker.pages.graph.building import SOURCE, Building, ClosedEngine, inside_a_wave
from stoker.pages.graph.calling import Call
from stoker.pages.graph.events import EventKind, Subscriptions
from stoker.pages.graph.nodes import Input
from stoker.pages.graph.telling import DeviceHook, Teller
from stoker.pages.page import Page
from stoker.pages.store import Store

MODES: Final = ("immediate", "deferred")
_CALL: Final = int(WaveStep.CALL)
_WORTH_A_THREAD_NS: Final = 20_000


class Propagation(Building):
    """The graph of one store's pages, and what keeps derived ones up to date. One process stabilizes a store at a time.

    mode     `immediate` runs a wave behind each commit of this process; `deferred` when `stabilize` is called
    workers  threads for pages of one height, used where making one takes longer than handing it over
    engine   what runs the waves; the native one by default, its plain twin where there are no native kernels

    Raises UsageError for an unknown mode.
    """

    def __init__(
        self, store: Store, *, mode: str = "deferred", workers: int = 1, engine: WaveEngine | None = None
    ) -> None:
        if mode not in MODES:
            raise UsageError("unknown mode of propagation", expected=" or ".join(MODES), got=mode)
        super().__init__(store, engine)
        self._mode = mode
        self._cost_ns: dict[int, float] = {}
        self._writer = store.source_number(SOURCE)
        self._pool = ThreadPoolExecutor(workers, "stoker-pages-wave") if workers > 1 else None
        self._closed = False
        self._told = True  # who must hear of a wave: listeners of events, devices, the log's flusher
        self._told_lsn = 0  # of the newest wave that listeners heard of already
        # A line of the reader table for each thread that calls functions: it tells all processes what is being made.
        self._lines = [store.arena.announce(COMPUTED, 0) for _ in range(workers + 1 if workers > 1 else 1)]
        self._line = self._lines.pop()
        self._engine.tell(self._line + Reader.PAGE if self._line else 0)
        self._teller = Teller(store, self.graph)
        self.events = self._teller.events = Subscriptions(self._listen)
        idle = (self.graph.touched, self._pending, self._errors, store.listeners)
        methods = (Propagation.stabilize, Propagation._mended, Propagation._take_over)
        self._short = short_waves(self._engine, weakref.ref(self), idle, methods, self._lock)
        self._restore()
        self._listen()
        store.closing.append(self.close)

    @property
    def lock(self) -> threading.RLock:
        """What is held while edges change and waves run."""
        return self._lock

    @property
    def running(self) -> bool:
        """Tell whether this thread is inside a wave, or what follows one."""
        return self._is_making() or threading.get_ident() in self._unheard_of

    def close(self) -> None:
        """Stop listening, keep the signatures, end the threads; the store does so when it closes. Twice is no error."""
        if self._closed:
            return
        self._closed = True
        self.store.closing.remove(self.close)
        self._listen()
        try:
            self._keeper.save_signatures(self._signatures())
        finally:
            self._all_native = False
            self._judge_short()
            self._caller.forget()
            for line in (self._line, *self._lines):
                self.store.arena.withdraw(line)
            self._line, self._lines = 0, []
            self._engine = cast(WaveEngine, ClosedEngine())
            if self._pool:
                self._pool.shutdown()

    @property
    def mode(self) -> str:
        """When waves run: `immediate` or `deferred`."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        self._listen()

    @property
    def device_hook(self) -> DeviceHook | None:
        """What refreshes device copies at the end of a wave."""
        return self._teller.device_hook

    @device_hook.setter
    def device_hook(self, hook: DeviceHook | None) -> None:
        self._teller.device_hook = hook
        self._listen()

    def log_events(self, kinds: Iterable[EventKind] | None = None) -> None:
        """Keep events of these kinds (None for all) in the store's log from now on; an empty sequence ends it.

        `Store.logged_events` reads them again. Commits and waves of this process are told, not those of others.
        """
        self._teller.kept = frozenset(int(kind) for kind in (EventKind if kinds is None else kinds))
        self._listen()

    def _listen(self) -> None:
        """Hear of commits only while somebody wants to know: a listener makes every commit slower."""
        listeners = self.store.listeners
        self._told = self._teller.wanted or self.store.flusher is not None
        self._judge_short()
        wanted = not self._closed and (self._mode == "immediate" or self._teller.wanted)
        if wanted and self._committed not in listeners:
            listeners.append(self._committed)
        elif not wanted and self._committed in listeners:
            listeners.remove(self._committed)

    # -- running -------------------------------------------------------------------------------------------------

    def _committed(self, lsn: int, pages: Sequence[int]) -> None:
        if self.running:
            return
        self._teller.tell_commit(lsn, pages)
        if self._mode == "immediate" and any(self.graph.has_children(page) for page in pages):
            self.stabilize()

    def stabilize(self) -> WaveReport:
        """Make all derived pages that are out of date anew, and return what was done.

        A function that raises leaves its page and all below stale, with the error kept for `require`; others go on.
        Raises Conflict when others write the inputs faster than a wave can be made.
        """
        if self._all_native and not (self.graph.touched or self._pending or self._errors):
            report = self._engine.quick(self._writer)
            if report == WaveStep.OWNER_DEAD:
                self._mended(WaveStep.OWNER_DEAD)
            if not isinstance(report, int):
                if self._told or self.store.listeners:
                    with self._exclusive():
                        self._end(report)
                return report
        return self._wave(None)

    @property
    def shortest_stabilize(self) -> Callable[[], WaveReport]:
        """`stabilize` without a Python frame where nothing is to be told; the method where there is no such way."""
        # Not put in the instance in place of the method: its dictionary would make every other attribute slower.
        if self._short and type(self).stabilize is Propagation.stabilize:
            return self._short.stabilize
        return self.stabilize

    def _judge_short(self) -> None:
        if self._short:
            self._short.calls = self._pool is None
            heard = self._told or self._closed
            self._short.ready = not heard and (self._all_native or self._short.calls)
            self._short.writer = self._writer

    def _wave(self, only: list[int] | None) -> WaveReport:
        # As `_exclusive`, without the price of a context manager.
        if self._is_making():
            raise inside_a_wave()
        engine = self._engine
        self._lock.acquire()
        engine.hold(1)
        try:
            if self.graph.touched or self._pending:
                self._sync()
                self._judge_short()
            report = engine.advance(self._writer, only)
            if isinstance(report, int):
                report = self._go_on(report, only)
            if self._told or self._errors or self.store.listeners:
                self._end(report)
            return report
        finally:
            engine.hold(-1)
            self._lock.release()

    def _take_over(self, left: list[tuple[int, Exception | None]] | None, step: WaveReport | int) -> WaveReport:
        """Go on with a wave whose functions the short way called, all but those that are left; it holds the lock."""
        if left is not None:
            thread = threading.get_ident()
            self._makers.add(thread)
            try:
                self._see_to(left)
            finally:
                self._makers.discard(thread)
            step = self._engine.advance(self._writer, None)
        report = self._go_on(step, None) if isinstance(step, int) else step
        if self._told or self._errors or self.store.listeners:
            self._end(report)
        return report

    def refresh(self, page: int | Page) -> WaveReport:
        """Make one page, and what it depends on, up to date, lazy or not. Raises DeriveError when that fails,
        Conflict when the inputs change faster than it can be made."""
        number = page_id(page)
        with self._exclusive():
            report = self._wave(sorted(self.graph.ancestors(number) | {number}))
            self.require(number)
            return report

    def _go_on(self, step: int, only: list[int] | None) -> WaveReport:
        """Do what a wave waits for until it is done."""
        thread = threading.get_ident()
        self._makers.add(thread)
        try:
            while True:
                if step == _CALL:
                    self._make(self._engine.calls())
                elif step == WaveStep.SLOW:
                    if self._commit():
                        return self._engine.report()
                elif not self._mended(step):
                    raise Conflict("inputs of derived pages change faster than they can be made")
                report = self._engine.advance(self._writer, only)
                if not isinstance(report, int):
                    return report
                step = report
        except BaseException:
            self._engine.abandon()
            raise
        finally:
            self._makers.discard(thread)

    def _mended(self, step: int) -> bool:
        """Remove what keeps a wave from beginning; tell whether it can be tried again."""
        lock = self.store.arena.lock
        if step == WaveStep.GONE:
            self._forget(self._engine.gone())
            self._sync()
        elif step == WaveStep.OWNER_DEAD:
            lock.mend_held()
            lock.release()
        elif step == WaveStep.NO_LOCK:
            with lock.held():  # says why not
                pass
        return step != WaveStep.UNSTEADY

    def _commit(self) -> bool:
        """Commit the wave the long way; tell whether nobody wrote meanwhile what it had read."""
        engine = self._engine
        with self.store.batch(source=SOURCE) as batch:
            if not engine.steady():
                return False
            images = {page: np.frombuffer(data, np.uint8) for page, data in engine.staged()}
            if images:
                batch.commit.wave(images)
            for page, state in engine.states():
                batch.set_state(page, PageState(state))
            engine.settle(batch.finish())
        self._told_lsn = batch.lsn
        self._writer = self.store.source_number(SOURCE)
        self._judge_short()
        return True

    # -- calling -------------------------------------------------------------------------------------------------

    def _make(self, pages: Sequence[int]) -> None:
        """Call pages of one height, the costliest first where threads share them."""
        if self._pool and len(pages) > 1:
            costs = {page: self._cost_ns.get(page, 0.0) for page in pages}
            if sum(costs.values()) > _WORTH_A_THREAD_NS * len(pages):
                self._make_in_threads(sorted(pages, key=lambda page: -costs[page]))
                return
        self._see_to([(page, None) for page in pages] if self._pool else self._engine.make())

    def _see_to(self, left: Iterable[tuple[int, Exception | None]] | None) -> None:
        """Call pages that the engine did not, and take the errors of those that it did."""
        for page, error in left or ():
            if error is not None:
                self._take(page, error)
            elif (call := self._call_of(page)) is not None:
                self._take(page, self._try(page, call, self._line))

    def _make_in_threads(self, pages: Sequence[int]) -> None:
        assert self._pool is not None
        calls = {page: call for page in pages if (call := self._call_of(page)) is not None}
        results = dict(zip(calls, self._pool.map(self._try_apart, calls, calls.values()), strict=True))
        for page in sorted(results):
            self._take(page, results[page])

    def _call_of(self, page: int) -> Call | None:
        """Return a page's filled call; None when it failed, or the wave begins again because somebody wrote."""
        try:
            return self._caller.filled(self._derivations[page])
        except Exception as error:
            self._take(page, error)
            return None

    def _try(self, page: int, call: Call, line: int) -> Exception | None:
        start_ns = monotonic_ns() if self._pool else 0
        words = self.store.arena.words
        try:
            if line:
                words[line + Reader.PAGE] = page
            made = call.function(call.inputs, call.out, **call.parameters)
            if made is not None and made is not call.out:
                call.take(made, page)
        except Exception as error:
            return error
        finally:
            if line:
                words[line + Reader.PAGE] = 0
        if self._pool:
            spent = monotonic_ns() - start_ns
            self._cost_ns[page] = 0.8 * self._cost_ns.get(page, spent) + 0.2 * spent
        return None

    def _try_apart(self, page: int, call: Call) -> Exception | None:
        thread = threading.get_ident()
        self._makers.add(thread)
        line = self._lines.pop() if self._lines else 0
        try:
            return self._try(page, call, line)
        finally:
            self._lines.append(line)
            self._makers.discard(thread)

    def _take(self, page: int, error: Exception | None) -> None:
        if error is None:
            self._engine.give(page)
        else:
            self._errors[page] = error
            self._engine.fail(page)

    def _end(self, report: WaveReport) -> None:
        """Do what follows a wave: errors that are over, durability, listeners, device copies, events."""
        if self._errors:
            for page in (*report.recomputed, *report.unchanged):
                self._errors.pop(page, None)
        with self._unheard():
            told = report.lsn == self._told_lsn or not report.recomputed
            if not told and (self.store.listeners or self.store.flusher):
                self.store.committed(report.lsn, report.recomputed, "")
            self._teller.tell_wave(report)

    # -- asking --------------------------------------------------------------------------------------------------

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
        with self._exclusive():
            self._sync()
            with self.store.arena.lock.held():
                self._engine.catch_up()
            return [page for page in self.graph.order(self._derivations) if self._engine.out_of_date(page)]

    def check_purity(self, page: int | Page, times: int = 3) -> bool:
        """Make a page several times from the same inputs, unwritten; tell whether it always came out the same.

        Raises what its function raises, UsageError for an unbound one.
        """
        node = self._derivations[page_id(page)]
        function = self._functions.get(node.function)
        if function is None:
            raise UsageError("recompute is not bound in this process", got=node.function, remedy="bind it")
        sources = {source: self.store.read(source) for source in node.inputs}
        now = self.store.read(node.page)
        made: set[bytes] = set()
        for _ in range(times):
            given = [Input(source, sources[source].copy()) for source in node.inputs]
            call = Call(function, given, now.copy(), node.parameters)
            call.make(node.page)
            made.add(call.out.tobytes())
        return len(made) == 1
