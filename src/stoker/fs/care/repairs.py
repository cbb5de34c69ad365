"""Repairs of a whole cluster as one steps through them: passes, the queue, several slices at a time, at a pace."""

from functools import partial
from typing import Final

import msgspec

from stoker.core.errors import NotFoundError, StokerError
from stoker.fs.care.examining import Examined, Ground, Group, examine
from stoker.fs.care.waiting import NOTED_SPARE, Bucket, Pace, Queue, Waiting
from stoker.fs.cluster import Lanes
from stoker.fs.cluster.lanes import Task
from stoker.fs.cluster.repairing import Repaired
from stoker.fs.meta.slices import CHUNK_BYTES, Slice
from stoker.fs.place import ClusterMap
from stoker.fs.place.map import Pool

_STARTS_MAX: Final = 1000
_PASS_RETRY_SECONDS: Final = 10.0
_FRUITLESS_MAX: Final = 16


class RepairOptions(msgspec.Struct, frozen=True):
    """How repair goes about.

    bytes_per_second    moved by repairs in the whole cluster: only the master that leads repairs; 0 is without limit
    at_once             slices that are being repaired side by side
    pass_seconds        after so long everything is examined again though no map has changed
    calm_seconds        a map must be so old before a pass over it may settle groups: clients know it by then
    """

    bytes_per_second: int = 0
    at_once: int = 4
    pass_seconds: float = 1800.0
    calm_seconds: float = 5.0


class RepairStatus(msgspec.Struct, frozen=True):
    """How repair stands. Counts are those since this master leads; times are in seconds, -1 for what is not known.

    `exposure` counts slices by how many shards they could lose further, as the last pass found them; below 0 they
    cannot be read. `waiting_by_spare` are those that wait for repair now. `remains` are slices of too few shards that
    no file shows.
    """

    paused: bool = False
    examining: bool = False
    waiting: int = 0
    waiting_bytes: int = 0
    waiting_by_spare: dict[int, int] = {}
    oldest_seconds: float = 0.0
    active: int = 0
    repaired: int = 0
    repaired_bytes: int = 0
    rebuilt_shards: int = 0
    copied_shards: int = 0
    failed: int = 0
    error: str = ""
    bytes_per_second: int = 0
    eta_seconds: float = -1.0
    exposure: dict[int, int] = {}
    slices: int = 0
    bytes: int = 0
    pass_age_seconds: float = -1.0
    pass_epoch: int = 0
    silent_disks: tuple[int, ...] = ()
    remains: int = 0
    unsettled_groups: int = 0


class Repairs:
    """Repairs while one steps. Not for several threads; the work itself runs in `lanes`."""

    def __init__(self, ground: Ground, lanes: Lanes, options: RepairOptions) -> None:
        self._ground = ground
        self._store = ground.store
        self._lanes = lanes
        self._options = options
        self.paused = False
        self._stopping = False
        self._queue = Queue()
        self._bucket = Bucket(options.bytes_per_second)
        self._pace = Pace()
        self._active: dict[Task, Waiting] = {}
        self._pass: Task | None = None
        self._pass_facts: object = None
        self._pass_after = 0.0
        self._urgent = True
        self._facts: object = None
        self._facts_since = 0.0
        self._seen: Examined | None = None
        self._settled: set[Group] = set()
        self._fruitless = 0
        self._repaired_then = 0
        self._repaired = self._repaired_bytes = self._rebuilt = self._copied = self._failed = 0
        self._error = ""

    # -- what happens

    def note(self, data: Slice) -> None:
        """Have a slice repaired that somebody found in need of it; what can be none is not believed."""
        if 0 < data.size_bytes <= CHUNK_BYTES and 0 <= data.id < 2**63 and 0 <= data.generation < 2**63:
            self._queue.add(Waiting(data, NOTED_SPARE, self._lanes.clock(), 2 * data.size_bytes))

    def examine_soon(self) -> None:
        """Have everything examined at the next step, before what waits is done."""
        self._urgent = True

    def stop(self) -> None:
        """Have what runs in lanes end soon."""
        self._stopping = True

    # -- steps

    def step(self, cluster: ClusterMap) -> None:
        """Take what is done, begin what may be begun."""
        now = self._lanes.clock()
        facts = _facts(cluster)
        if facts != self._facts:
            self._facts, self._facts_since, self._urgent = facts, now, True
            self._fruitless = 0
            self._queue.hurry()
        self._take_pass(cluster, now)
        self._take_repairs(now)
        if self._stopping:
            return
        if not self.paused:
            self._begin_repairs(now)
        if self._pass is None and (self._urgent or (now >= self._pass_after and self._is_idle(now))):
            self._begin_pass(cluster, now)

    def _is_idle(self, now: float) -> bool:
        """Tell whether there is nothing that may be done now: what failed and must wait keeps no pass from coming."""
        return not self._active and not self._queue.is_due(now)

    def _begin_pass(self, cluster: ClusterMap, now: float) -> None:
        self._urgent = False
        self._pass_after = now + self._options.pass_seconds
        self._pass_facts = self._facts
        self._pass = self._lanes.begin(lambda: examine(self._ground, cluster, lambda: self._stopping))

    def _take_pass(self, cluster: ClusterMap, now: float) -> None:
        if self._pass is None or not self._pass.done():
            return
        task, self._pass = self._pass, None
        try:
            found: Examined | None = task.result()
        except StokerError as error:
            self._error = str(error)
            self._pass_after = now + _PASS_RETRY_SECONDS
            return
        if found is None:
            return
        self._seen = found
        for item in found.waiting:
            self._queue.add(item)
        moving = {(*pool.key, one.group) for pool in cluster.pools for one in pool.before}
        calm = found.began - self._facts_since >= self._options.calm_seconds
        if calm and not found.silent and self._pass_facts == self._facts:
            self._settled = moving - found.unsettled
        if moving - self._settled:
            self._pass_after = now + self._look_again_seconds()
        elif found.needy > len(found.waiting):
            self._pass_after = now + _PASS_RETRY_SECONDS

    def _look_again_seconds(self) -> float:
        """Return when groups that have not settled are worth another pass, once what waits is done.

        The first time when the map has been known for a while. Later ones cost as much and find the same while
        nothing was repaired: they come half as often each time.
        """
        if self._repaired != self._repaired_then or self._settled:
            self._repaired_then, self._fruitless = self._repaired, 0
        seconds = max(self._options.calm_seconds, 1.0) * 2.0 ** min(self._fruitless, _FRUITLESS_MAX)
        self._fruitless += 1
        return max(min(seconds, self._options.pass_seconds), self._options.calm_seconds)

    def _take_repairs(self, now: float) -> None:
        for task in [task for task in self._active if task.done()]:
            item = self._active.pop(task)
            try:
                self._note_done(item, task.result(), now)
            except NotFoundError:
                continue  # it was removed meanwhile
            except StokerError as error:
                self._failed += 1
                self._error = str(error)
                self._queue.failed(item, now)

    def _note_done(self, item: Waiting, done: Repaired, now: float) -> None:
        if done.refused:
            self._failed += 1
            self._error = f"slice {done.slice.id}: {len(done.refused)} shards were refused by the disks they belong on"
            self._queue.failed(item, now)
            return
        self._repaired += 1
        self._repaired_bytes += item.cost_bytes
        self._rebuilt += len(done.rebuilt)
        self._copied += len(done.copied)
        self._pace.done(item.cost_bytes, now)

    def _begin_repairs(self, now: float) -> None:
        for _ in range(_STARTS_MAX):
            if len(self._active) >= self._options.at_once:
                return
            item = self._queue.take(now)
            if item is None:
                return
            if not self._bucket.take(item.cost_bytes, now):
                self._queue.add(item)
                return
            self._active[self._lanes.begin(partial(self._store.repair_slice, item.slice))] = item
            self._take_repairs(now)

    def take_settled(self) -> set[Group]:
        """Return groups whose slices are all where they belong, once."""
        settled, self._settled = self._settled, set()
        return settled

    # -- what is told

    def status(self, pools: tuple[Pool, ...]) -> RepairStatus:
        """Return how repair stands."""
        now = self._lanes.clock()
        seen = self._seen
        waiting_bytes = self._queue.bytes + sum(item.cost_bytes for item in self._active.values())
        rate = self._pace.rate(now)
        if self._options.bytes_per_second:
            rate = min(rate or self._options.bytes_per_second, self._options.bytes_per_second)
        return RepairStatus(
            paused=self.paused,
            examining=self._pass is not None,
            waiting=len(self._queue),
            waiting_bytes=waiting_bytes,
            waiting_by_spare=self._queue.by_spare(),
            oldest_seconds=self._queue.oldest_seconds(now),
            active=len(self._active),
            repaired=self._repaired,
            repaired_bytes=self._repaired_bytes,
            rebuilt_shards=self._rebuilt,
            copied_shards=self._copied,
            failed=self._failed,
            error=self._error,
            bytes_per_second=self._options.bytes_per_second,
            eta_seconds=0.0 if not waiting_bytes else waiting_bytes / rate if rate >= 1 else -1.0,
            exposure={} if seen is None else seen.exposure,
            slices=0 if seen is None else seen.slices,
            bytes=0 if seen is None else seen.bytes,
            pass_age_seconds=-1.0 if seen is None else now - seen.began,
            pass_epoch=0 if seen is None else seen.epoch,
            silent_disks=() if seen is None else seen.silent,
            remains=0 if seen is None else seen.remains,
            unsettled_groups=sum(len(pool.before) for pool in pools),
        )


def _facts(cluster: ClusterMap) -> object:
    """Return what of a map decides where shards belong and who can be asked: with another, all is examined anew."""
    disks = tuple((d.id, d.answers, d.writable, d.placeable, d.weight, d.domain("disk")) for d in cluster.disks)
    return disks, tuple((pool.key, pool.bits, pool.overrides) for pool in cluster.pools)
