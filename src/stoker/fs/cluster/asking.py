"""Calls to holders, counted and timed: what reading, writing and repair have in common."""

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any, Final, TypeVar, cast

import msgspec

from stoker.core.errors import CorruptError, StokerError, UnavailableError
from stoker.fs.chunk.target import Target
from stoker.fs.cluster.health import Health
from stoker.fs.cluster.lanes import Awaited, Lanes, Task, ThreadLanes
from stoker.fs.cluster.placing import Placed, Places
from stoker.fs.cluster.works import Work
from stoker.fs.disk.interface import ShardHeader, ShardHolder, ShardId
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap
from stoker.fs.wire import Begun, is_no_answer

T = TypeVar("T")
_LISTED: Final = 1000
_LAST_INDEX: Final = 254
_LAST_GENERATION: Final = 2**64 - 1


class Options(msgspec.Struct, frozen=True):
    """How a cluster's client behaves.

    hedge_seconds_min, hedge_seconds_max  bounds of the delay after which another shard is asked for
    linger_seconds    how long a write waits for the last shards when enough for its acknowledgement are stored
    check_headers     ask for a slice's header before its first read: another size or class is told as no such slice
    known_max         so many slices are remembered: that their header was seen, and where their shards went
    """

    hedge_seconds_min: float = 0.002
    hedge_seconds_max: float = 1.0
    linger_seconds: float = 0.25
    check_headers: bool = True
    known_max: int = 65_536


class Remembered:
    """What is known of the latest slices; the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: OrderedDict[object, Any] = OrderedDict()

    def put(self, key: object, value: Any) -> None:
        """Remember something."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def get(self, key: object) -> Any:
        """Return what is remembered, None for nothing."""
        with self._lock:
            return self._kept.get(key)

    def forget(self, key: object) -> None:
        """Forget something."""
        with self._lock:
            self._kept.pop(key, None)


class Holders:
    """The holders of a cluster's shards by their disks' numbers, as this client sees them."""

    def __init__(
        self,
        volume: str,
        source: Callable[[], ClusterMap],
        holders: Callable[[int], ShardHolder],
        classes: Callable[[int], StorageClass],
        lanes: Lanes,
        options: Options,
    ) -> None:
        self.volume = volume
        self.lanes = lanes
        self.options = options
        self.health = Health(lanes.clock, options.hedge_seconds_min, options.hedge_seconds_max)
        self._source = source
        self._holders = holders
        self._classes = classes
        self._places: Places | None = None

    def places(self) -> Places:
        """Return where slices are by the newest map."""
        newest = self._source()
        places = self._places
        if places is None or places.cluster is not newest:
            places = self._places = Places(newest, self._classes)
        return places

    def good(self, places: Places) -> Callable[[int], bool]:
        """Return what tells whether a disk should be asked: by the map and by how it fared."""
        return lambda disk: places.answers(disk) and self.health.allows(disk)

    def call(self, disk: int, work: Callable[[ShardHolder], T], *, read_bytes: int = 0) -> T:
        """Do something with a holder, and note how it fared. Whatever it raises is a StokerError.

        `read_bytes`, unless 0, is how much of shards is read: how long that took counts.
        """
        start = self.lanes.clock()
        try:
            found = work(self._holders(disk))
        except Exception as error:
            self.health.failed(disk, error)
            if isinstance(error, StokerError):
                raise
            raise UnavailableError("holder of shards failed", where=f"disk {disk}", got=repr(error)[:200]) from error
        self.health.answered(disk, self.lanes.clock() - start, read_bytes=read_bytes)
        return found

    def begin(self, disk: int, work: Callable[[ShardHolder], Any], *, read_bytes: int = 0) -> Task:
        """Begin to do something with a holder: of one behind a connection without a lane, if it can be asked at once.

        Only who waits with threads can wait for a connection, too.
        """
        if isinstance(work, Work) and isinstance(self.lanes, ThreadLanes):
            begun = self._begun(disk, work)
            if begun is not None:
                return Following(self, disk, begun, read_bytes)
        return self.lanes.begin(lambda: self.call(disk, work, read_bytes=read_bytes))

    def _begun(self, disk: int, work: Work) -> Begun[Any] | None:
        try:
            holder = self._holders(disk)
            return work.begin(holder) if isinstance(holder, Target) else None
        except Exception:
            return None  # it comes again in the lane, and is counted there

    def each(self, works: Mapping[int, Callable[[ShardHolder], Any]]) -> tuple[dict[int, Any], dict[int, StokerError]]:
        """Do something with each of some holders, side by side; return what they gave, and their errors."""
        tasks = {disk: self.begin(disk, work) for disk, work in works.items()}
        found, errors = {}, {}
        while waiting := [task for task in tasks.values() if not task.done()]:
            self.lanes.wait(waiting, None)
        for disk, task in tasks.items():
            try:
                found[disk] = task.result()
            except StokerError as error:
                errors[disk] = error
        return found, errors

    # -- looking for shards

    def search(self, places: Places, placed: Placed) -> tuple[dict[int, list[int]], list[tuple[int, StokerError]]]:
        """Return on which disks each shard of a slice lies, asking all; and who did not answer."""
        before = _before(placed)
        asked = {disk.id: _listing(before, placed.width) for disk in places.answering()}
        pages, errors = self.each(asked)
        found: dict[int, list[int]] = {}
        for disk, page in pages.items():
            for header in page.headers:
                if header.shard not in page.bad and placed.owns(header):
                    found.setdefault(header.shard.index, []).append(disk)
        silent = [
            (disk.id, UnavailableError("disk does not answer", where=f"disk {disk.id}", got=disk.health))
            for disk in places.cluster.disks
            if not disk.answers and disk.health != "out"
        ]
        return found, [*errors.items(), *silent]

    def everything(
        self, places: Places, silent: list[int] | None = None
    ) -> Iterator[tuple[int, ShardHeader, bool]]:  # fmt: skip
        """Return all shards of all disks in the order of their names: the disk, the header, whether it is damaged.

        Raises UnavailableError for a disk that does not answer and is not given up, CorruptError where one cannot
        tell all that it holds: an inventory is complete or none. Who hands in a list `silent` gets what there is, and
        in it the disks that did not tell all: then nothing follows from what is not there.
        """
        for disk in places.cluster.disks:
            if not disk.answers and disk.health != "out":
                if silent is None:
                    raise UnavailableError("inventory is not complete", where=f"disk {disk.id}", got=disk.health)
                silent.append(disk.id)
        streams = [self._told_by(disk.id, silent) for disk in places.answering()]
        yield from heapq.merge(*streams, key=lambda one: one[1].shard)

    def _told_by(self, disk: int, silent: list[int] | None) -> Iterator[tuple[int, ShardHeader, bool]]:
        try:
            yield from self._all_of(disk, silent)
        except StokerError:
            if silent is None:
                raise
            silent.append(disk)

    def _all_of(self, disk: int, silent: list[int] | None) -> Iterator[tuple[int, ShardHeader, bool]]:
        after: ShardId | None = None
        more = True
        while more:
            page = self.call(disk, _listing(after, _LISTED))
            if not page.complete:
                if silent is None:
                    raise CorruptError("inventory is not complete", where=f"disk {disk}")
                silent.append(disk)
            bad = set(page.bad)
            for header in page.headers:
                yield disk, header, header.shard in bad
                after = header.shard
            more = page.more


class Following(Awaited):
    """A `Task`: a request under way. When its answer is lost, a lane asks once more."""

    def __init__(self, holders: Holders, disk: int, begun: Begun[Any], read_bytes: int) -> None:
        self._holders, self._disk, self._begun, self._read_bytes = holders, disk, begun, read_bytes
        self._lane: Task | None = None
        begun.future.add_done_callback(_noting(holders, disk, begun.usable, read_bytes))

    @property
    def future(self) -> "Future[Any]":
        """Where the answer comes, or that of the lane."""
        return self._begun.future if self._lane is None else cast("Future[Any]", self._lane)

    @property
    def until(self) -> float:
        """When it is too late; a lane sees to that by itself."""
        return self._begun.until if self._lane is None else math.inf

    def done(self) -> bool:
        """Tell whether it has returned or raised; has a lane ask again where nothing was answered."""
        if self._lane is None:
            if not self._begun.done():
                return False
            if not self._begun.lost:
                return True
            self._lane = self._holders.lanes.begin(self._again)
        return self._lane.done()

    def result(self) -> Any:
        """Return what was asked for, or raise what went wrong."""
        if self._lane is not None:
            return self._lane.result()
        if not self._begun.future.done():
            self._holders.health.failed(self._disk, UnavailableError("no answer in time"))
        return self._begun.result()

    def _again(self) -> Any:
        return self._holders.call(self._disk, lambda _: self._begun.again(), read_bytes=self._read_bytes)


def _noting(
    holders: Holders, disk: int, usable: Callable[[], bool], read_bytes: int
) -> "Callable[[Future[Any]], None]":  # fmt: skip
    """Return what notes how a holder fared, also where nobody waits any more; called by the connection's thread.

    It knows nothing of who waits: a future keeps its callbacks, and what came would stay in memory in a circle.
    """
    start = holders.lanes.clock()

    def came(future: "Future[Any]") -> None:
        error = future.exception()
        if error is None:
            holders.health.answered(disk, holders.lanes.clock() - start, read_bytes=read_bytes)
        elif isinstance(error, Exception) and not is_no_answer(error, usable):
            holders.health.failed(disk, error)

    return came


def _listing(after: ShardId | None, limit: int) -> Callable[[ShardHolder], Any]:
    return lambda holder: holder.listing(after, limit)


def _before(placed: Placed) -> ShardId | None:
    """Return a name that lies before all shards of a slice, and behind those of the one before it."""
    data = placed.data
    if data.generation:
        return ShardId(data.id, data.generation - 1, _LAST_INDEX)
    return ShardId(data.id - 1, _LAST_GENERATION, _LAST_INDEX) if data.id else None


def by_disk(pairs: Sequence[tuple[int, ShardId]]) -> dict[int, list[ShardId]]:
    """Return shards by the disk they lie on."""
    found: dict[int, list[ShardId]] = {}
    for disk, shard in pairs:
        found.setdefault(disk, []).append(shard)
    return found
