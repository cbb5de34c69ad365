"""The store with all that belongs to it: past states, dependencies, events, numbers."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from stoker.core.errors import UsageError
from stoker.pages.arena.loading import load_images
from stoker.pages.devices.copies import DevicePages
from stoker.pages.devices.stats import DeviceStats, device_stats
from stoker.pages.devices.waves import DeviceWaves
from stoker.pages.frames import FrameType, Location, Residency
from stoker.pages.graph import EdgeKind, Event, EventKind, Propagation, WaveReport, events_of
from stoker.pages.graph.nodes import Function
from stoker.pages.history import NOW, PageVersion, State, StateDiff, Target, Written, latest_valid, read_checkpoint
from stoker.pages.images import Meta
from stoker.pages.metrics import StoreStats, metrics_text, store_stats
from stoker.pages.page import Page
from stoker.pages.store import LOG_BYTES, PAGES_MAX, SIZE_BYTES, memory_arena
from stoker.pages.store import Store as CoreStore
from stoker.pages.timeline import Timeline


class Store(CoreStore):
    """Pages that processes share; see `stoker.pages.store.Store` for opening, reading and writing."""

    _graph: Propagation | None = None
    _devices: DevicePages | None = None
    _waves: DeviceWaves | None = None

    @property
    def journal(self) -> Timeline:
        """The log: `scan`, `stats`, `floor_lsn`."""
        return Timeline(self)

    def close(self) -> None:
        """Leave the store; the last one to leave removes its shared memory."""
        if self._devices is not None and self._open and self._pid == os.getpid():
            self._devices.close()
            self._devices = self._waves = None
        super().close()
        self._graph = None
        self.__dict__.pop("stabilize", None)

    # -- time ----------------------------------------------------------------------------------------------------

    def checkpoint(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        incremental: bool = False,
        codec: str = "auto",
        keep: int = 2,
    ) -> Written:
        """Write all pages as of now; see `Timeline.checkpoint`."""
        target = Path(folder) if folder is not None else None
        return Timeline(self).checkpoint(target, incremental=incremental, codec=codec, keep=keep)

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        size_bytes: int = SIZE_BYTES,
        pages_max: int = PAGES_MAX,
        log_bytes: int = LOG_BYTES,
    ) -> Self:
        """Make a store in memory from a checkpoint: a file, or the newest sound one of a folder.

        Pages keep ids, epochs and metadata. Raises FormatError, ChecksumError, OutOfSpace, UsageError for a folder
        without a checkpoint.
        """
        where = Path(path)
        state = latest_valid(where)[0] if where.is_dir() else read_checkpoint(where)
        if where.is_dir() and not state.lsn:
            raise UsageError("no sound checkpoint is here", where=str(path))
        return cls.of_state(state, name=name, size_bytes=size_bytes, pages_max=pages_max, log_bytes=log_bytes)

    @classmethod
    def of_state(
        cls,
        state: State,
        *,
        name: str = "",
        size_bytes: int = SIZE_BYTES,
        pages_max: int = PAGES_MAX,
        log_bytes: int = LOG_BYTES,
    ) -> Self:
        """Make a store in memory that holds a past state; its log begins behind it."""
        slots = max([pages_max, *(page & 0xFFFF_FFFF for page in state.pages)])
        arena = memory_arena(name, max(size_bytes, 2 * state.page_bytes), slots, log_bytes, next_lsn=state.lsn + 1)
        load_images(arena, state.pages.values(), generation=state.next_generation)
        arena.publish()
        return cls(arena)

    def replay(
        self,
        *,
        lsn: int | None = None,
        page: int | None = None,
        epoch: int | None = None,
        time_ns: int | None = None,
        mark: str | None = None,
    ) -> State:
        """Return all pages as of an LSN, a page's epoch, a time or a mark; now without any. See `Timeline.replay`."""
        return Timeline(self).replay(Target(lsn=lsn, page=page, epoch=epoch, time_ns=time_ns, mark=mark))

    def history(self, page: int | Page, *, with_data: bool = False) -> list[PageVersion]:
        """Return what each commit that is kept made of a page."""
        return Timeline(self).history(page.id if isinstance(page, Page) else page, with_data=with_data)

    def diff(self, old: Target, new: Target = NOW) -> StateDiff:
        """Return what differs between two moments."""
        return Timeline(self).diff(old, new)

    def verify(self, *, quarantine: bool = False) -> list[str]:
        """Return all that is wrong with the store; see `Timeline.verify`."""
        return Timeline(self).verify(quarantine=quarantine)

    def heal(self) -> list[int]:
        """Give pages in quarantine their bytes again, and return their ids; see `Timeline.heal`."""
        return Timeline(self).heal()

    # -- dependencies --------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Propagation:
        """The dependency graph and its engine; made at the first use."""
        self.check_open()
        if self._graph is None:
            self._graph = Propagation(self)
            self._join_waves()
        return self._graph

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
        """Make a page by a function of others from now on; see `Propagation.derive`."""
        self.graph.derive(function, inputs, out, name=name, lazy=lazy, **parameters)

    def link(self, parent: int | Page, child: int | Page, kind: EdgeKind = EdgeKind.DATA) -> None:
        """Add an edge. Raises CycleError."""
        self.graph.link(parent, child, kind)

    def stabilize(self) -> WaveReport:
        """Make all derived pages that are out of date anew; see `Propagation.stabilize`."""
        report = (self._graph or self.graph).stabilize()
        if self._waves is not None:
            self._waves.settle()
        return report

    def stale(self) -> list[int]:
        """Return derived pages that are out of date."""
        return self.graph.stale()

    def subscribe(
        self,
        kinds: Iterable[EventKind] | None,
        handler: Callable[[Event], None],
        *,
        wanted: Callable[[Event], bool] | None = None,
    ) -> int:
        """Hear of what this process commits; return a handle for `graph.events.unsubscribe`."""
        return self.graph.events.subscribe(kinds, handler, wanted=wanted)

    def logged_events(self, *, since: int = 0, until: int | None = None) -> Iterator[Event]:
        """Yield the events that `graph.log_events` kept, in their order, with frames from LSN `since` to `until`."""
        return events_of(self.journal.scan(since=since, until=until, kinds=frozenset({FrameType.EVENT})))

    # -- devices -------------------------------------------------------------------------------------------------

    @property
    def devices(self) -> DevicePages:
        """The copies of pages that this process has on devices; made at the first use, and told of waves."""
        self.check_open()
        if self._devices is None:
            self._devices = DevicePages(self)
            self._join_waves()
        return self._devices

    def use_devices(self, copies: DevicePages) -> DevicePages:
        """Have copies with other settings as `devices`. Raises UsageError when there are some already."""
        if self._devices is not None:
            raise UsageError("store has its copies on devices already", remedy="set them before the first use")
        self._devices = copies
        self._join_waves()
        return copies

    def _join_waves(self) -> None:
        if self._graph is None:
            return
        if self._devices is not None:
            self._waves = DeviceWaves(self._devices, self._graph)
            self.__dict__.pop("stabilize", None)
        elif type(self).stabilize is Store.stabilize:  # nothing follows a wave: the graph's own method, without ours
            self.__dict__["stabilize"] = self._graph.shortest_stabilize

    def allocate(  # noqa: PLR0913 - what a page is, and where it is
        self,
        size_bytes: int = 0,
        *,
        dtype: Any = None,
        shape: list[int] | tuple[int, ...] | None = None,
        name: str = "",
        location: Location = Location.HOST,
        meta: Meta | None = None,
        device: str = "",
        mode: str = "device",
    ) -> Page:
        """Add a page of zeros: of `size_bytes`, or for an array of `dtype` and `shape`.

        device  where it has a copy from the beginning, in memory of this mode; see `Page.to`

        Raises OutOfSpace; DeviceError with no page added.
        """
        if not device or device == "host":
            return super().allocate(size_bytes, dtype=dtype, shape=shape, name=name, location=location, meta=meta)
        where = Location.UNIFIED if mode == "unified" else Location.DEVICE
        with self.devices.lock:
            page: Page | None = None
            try:
                with self.batch() as batch:
                    page = batch.allocate(size_bytes, dtype=dtype, shape=shape, name=name, location=where, meta=meta)
                    self.devices.add_new(page.id, batch.commit.facts(page.id).size_bytes, device, mode)
                    batch.move(page, where, Residency.BOTH)
            except BaseException:
                if page is not None:
                    self.devices.forget(page.id)
                raise
        return page

    def move_to(self, page: int, device: str, *, mode: str = "device") -> int:
        """Put a copy of a page on a device of this process, or take it back to the host; see `Page.to`."""
        if device == "host":
            return self.devices.take_back([page]) if self._devices is not None else super().move_to(page, device)
        self.devices.push([page], device, mode=mode).wait()
        return self.arena.facts(page).lsn

    # -- numbers -------------------------------------------------------------------------------------------------

    def device_stats(self) -> list[DeviceStats]:
        """Return what this process has on each of its devices; empty where it uses none."""
        return device_stats(self._devices) if self._devices is not None else []

    def stats(self) -> StoreStats:
        """Return what the store is and did."""
        return store_stats(self)

    def metrics_text(self) -> str:
        """Return the same in the text format of Prometheus."""
        return metrics_text(store_stats(self))
