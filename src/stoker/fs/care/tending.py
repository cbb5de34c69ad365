"""The care that the leading master takes of its cluster, as a state machine that one steps: no threads, no waiting.

Membership first: what changes there is put into the map against the one that was seen, so that two who believe to
lead do no harm. Then repair, and what else must be done from time to time.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.care.examining import Ground
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.care.membership import Members, Rules
from stoker.fs.care.orders import change_map, paused
from stoker.fs.care.repairs import RepairOptions, Repairs
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.cluster import ClusterStore, Lanes
from stoker.fs.cluster.lanes import Task
from stoker.fs.meta.calls import ExpireSessions, PutMap, Reclaim
from stoker.fs.meta.cluster_map import MAP_BYTES_MAX
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap
from stoker.fs.place.changing import settled
from stoker.fs.place.map import pack_map
from stoker.fs.store.interface import SliceStore

_CLASSES_SECONDS: Final = 5.0
_TOLD_CHARACTERS_MAX: Final = 400


Collect = Callable[[Metadata, SliceStore], object]
"""Collects garbage of a volume, on positive evidence alone. Raises StokerError where it had to stop."""


class CareOptions(msgspec.Struct, frozen=True):
    """How a cluster is cared for, and how often: a look at the map, sessions and chunks, garbage."""

    rules: Rules = Rules()
    repair: RepairOptions = RepairOptions()
    map_seconds: float = 1.0
    tidy_seconds: float = 30.0
    collect_seconds: float = 3600.0


class Tending:
    """One master's care of the volume of `metadata`, whose slices are in `store`, by the maps of `maps`.

    `leading` tells whether it is its turn, `wall_ns` gives nanoseconds since 1970, `collect` collects garbage.
    """

    def __init__(  # noqa: PLR0913 - each by its name
        self,
        metadata: Metadata,
        store: ClusterStore,
        maps: MapSource,
        lanes: Lanes,
        leading: Callable[[], bool],
        options: CareOptions,
        *,
        wall_ns: Callable[[], int],
        collect: Collect | None = None,
    ) -> None:
        self._metadata = metadata
        self._store = store
        self.maps = maps
        self._classes = ClassesByNumber(metadata)
        self._ground = Ground(metadata, store, self._classes, lanes.clock)
        self._lanes = lanes
        self._leading = leading
        self._options = options
        self._wall_ns = wall_ns
        self.members = Members(options.rules)
        self.repairs = Repairs(self._ground, lanes, options.repair)
        self.leads = False
        self.trouble: dict[str, str] = {}
        self._made: Sequence[StorageClass] = ()
        self._due = {"map": 0.0, "classes": 0.0, "tidy": 0.0}
        self._collect = collect
        self._collecting: Task | None = None
        self._collect_after = lanes.clock() + options.collect_seconds
        self._garbage_error: StokerError | None = None

    # -- what happens

    def heard(self, beat: Heartbeat) -> None:
        """Take a sign of life; masters that do not lead take it, too, for when they will."""
        self.members.heard(beat)

    def noted(self, slices: Sequence[Slice]) -> None:
        """Take slices that clients found in need of repair."""
        for data in slices:
            self.repairs.note(data)

    def pause(self, *, pause: bool) -> None:
        """Have nothing repaired, or go on: it stands in the map, so that whoever leads next does the same.

        Raises NotFoundError while no disk is known, and what the metadata raise.
        """
        self.maps.learn(change_map(self._metadata, lambda cluster: paused(cluster, pause=pause))[1])
        self.repairs.paused = pause

    # -- steps

    def step(self) -> None:
        """Do what is to be done now. What fails is told in `trouble`, and tried again at a later step."""
        now = self._lanes.clock()
        self.members.passed(int(now * 1e9))
        if not self._leading():
            self._yield_to_another()
            return
        if not self.leads and not self._guarded("map", self._begin):
            return
        if self._is_due("map", now, self._options.map_seconds):
            self._guarded("map", self.maps.refresh)
        if self._is_due("classes", now, _CLASSES_SECONDS):
            self._guarded("classes", self._learn_classes)
        self._guarded("membership", self._tend_membership)
        cluster = self.maps.known
        if cluster is not None:
            self.repairs.paused = cluster.repair_paused
            self._guarded("repair", lambda: self.repairs.step(cluster))
            self._guarded("settling", self._settle)
        if self._is_due("tidy", now, self._options.tidy_seconds):
            self._guarded("tidying", self._tidy)
        if cluster is not None:
            self._guarded("garbage", self._tend_garbage)

    def _is_due(self, what: str, now: float, every_seconds: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + every_seconds
        return True

    def _guarded(self, what: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except Exception as error:  # what nobody has foreseen must not end the care of a cluster
            self.trouble[what] = str(error) if isinstance(error, StokerError) else repr(error)[:_TOLD_CHARACTERS_MAX]
            return False
        self.trouble.pop(what, None)
        return True

    def _begin(self) -> None:
        """Take over from who led before: its map is the truth, its queue is found again by a pass."""
        self.maps.refresh()
        self.members.take_over(self.maps.known)
        self.repairs = Repairs(self._ground, self._lanes, self._options.repair)
        self._learn_classes()
        self.leads = True

    def _yield_to_another(self) -> None:
        if self.leads:
            self.leads = False
            self.repairs.stop()
        self.trouble.clear()

    def _learn_classes(self) -> None:
        self._made = self._classes.all()

    # -- the map

    def _tend_membership(self) -> None:
        cluster = self.maps.known
        made = self.members.next_map(cluster, self._made, self._wall_ns())
        if made is not None:
            self._put(cluster, made)

    def _settle(self) -> None:
        """Let groups forget where they were, when all that they hold is where it belongs."""
        groups = self.repairs.take_settled()
        cluster = self.maps.known
        if not groups or cluster is None:
            return
        made = cluster
        for pool in cluster.pools:
            mine = {group for width, domain, group in groups if (width, domain) == pool.key}
            if mine:
                made = settled(made, pool.width, pool.domain, mine)
        if not self._put(cluster, msgspec.structs.replace(made, epoch=cluster.epoch + 1)):
            self.repairs.examine_soon()

    def _put(self, before: ClusterMap | None, made: ClusterMap) -> bool:
        """Put a map in place of the one it was made from; false where somebody was faster, whose map is learnt."""
        data = pack_map(made)
        try:
            self._metadata.run(PutMap(before.epoch if before is not None else 0, made.epoch, data))
        except MetaError as error:
            if error.errno == errno.ESTALE:
                self.maps.refresh()
                return False
            if error.errno == errno.EFBIG:
                raise StokerError(
                    "cluster map is too large to be put", expected=f"{MAP_BYTES_MAX} bytes at most", got=f"{len(data)}",
                    remedy="let the repair settle what moves; fewer groups at a time are moved then",
                ) from error  # fmt: skip
            raise
        self.maps.learn(made)
        return True

    # -- upkeep

    def _tidy(self) -> None:
        """End sessions that gave no sign of life in time, and free the chunks of files that are gone."""
        for request in (ExpireSessions(), Reclaim()):
            for _ in range(1000):
                if not self._metadata.run(request).more:
                    break

    def _tend_garbage(self) -> None:
        """Collect garbage from time to time, beside all else. Raises what the last collection met, until the next."""
        now = self._lanes.clock()
        if self._collecting is not None and self._collecting.done():
            task, self._collecting = self._collecting, None
            self._garbage_error = None
            try:
                task.result()
            except StokerError as error:
                self._garbage_error = error
        if self._collect is not None and self._collecting is None and now >= self._collect_after:
            self._collect_after = now + self._options.collect_seconds
            collect = self._collect
            self._collecting = self._lanes.begin(lambda: collect(self._metadata, self._store))
        if self._garbage_error is not None:
            raise self._garbage_error
