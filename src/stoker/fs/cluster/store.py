"""A store of slices over many holders of shards: copies and erasure coding, degraded and hedged reads.

Where shards are follows from the cluster map, the slice's number and its class: nobody keeps a list. Every byte that
is returned was verified against the checksum that its writer made.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import Final

import msgspec

from stoker.core.errors import NotFoundError, StokerError, StoreError, UnavailableError
from stoker.fs.cluster.asking import Holders, Options, Remembered, by_disk
from stoker.fs.cluster.health import Counts
from stoker.fs.cluster.lanes import Lanes, ThreadLanes
from stoker.fs.cluster.placing import Placed, Places
from stoker.fs.cluster.reading import Reading
from stoker.fs.cluster.repairing import Repair, Repaired, Seen, seen_at, seen_slices
from stoker.fs.cluster.works import Syncing
from stoker.fs.cluster.writing import Writing
from stoker.fs.disk.interface import Bytes, ShardHolder, ShardId
from stoker.fs.meta.slices import CHUNK_BYTES, Slice
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap
from stoker.fs.store.interface import SliceRange

_SHORT_MAX: Final = 100_000
_RANGES_AT_ONCE: Final = 2048
"""So many ranges of a batch are on their way at once."""


class Short(msgspec.Struct, frozen=True):
    """A slice that is not as it should be: which of its shards, none when only a read has found it so, and why."""

    slice: Slice
    shards: tuple[int, ...]
    why: str


class ClusterStore:
    """A `SliceStore` over the disks of a cluster map.

    volume   uuid of the volume whose slices these are
    source   gives the newest map that is known
    holders  gives the holder of a disk's shards by the disk's number; whoever gives them closes them
    classes  gives a storage class by its number
    lanes    where calls to holders run, and the clock; threads of its own unless told
    told     hears of each slice that needs a repair as it is noted; must not wait
    """

    def __init__(
        self,
        volume: str,
        source: Callable[[], ClusterMap],
        holders: Callable[[int], ShardHolder],
        classes: Callable[[int], StorageClass],
        lanes: Lanes | None = None,
        options: Options | None = None,
        told: Callable[[Short], object] = id,
    ) -> None:
        self._told = told
        self.options = options or Options()
        self._lanes = lanes or ThreadLanes()
        self._holders = Holders(volume, source, holders, classes, self._lanes, self.options)
        self._known = Remembered(self.options.known_max)
        self._written = Remembered(self.options.known_max)
        self._short: OrderedDict[tuple[int, int], Short] = OrderedDict()
        self._astray: dict[tuple[int, int], set[int]] = {}
        self._lock = Lock()

    # -- SliceStore

    def write(self, data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        """See SliceStore. Returns when as many shards are stored as the class wants for an acknowledgement.

        The last ones may still be on their way then, for whose sake the parts should not change: a shard whose bytes
        changed under way fits its checksums no more, is refused, and made anew by the repair. Raises
        AlreadyExistsError where the slice is there with other bytes, UnavailableError, NoSpaceError.
        """
        given_bytes = sum(memoryview(part).nbytes for part in parts)
        if given_bytes != data.size_bytes or not 0 < data.size_bytes <= CHUNK_BYTES:
            raise StoreError(
                "slice does not have its size", where=f"slice {data.id}", got=f"{given_bytes}",
                expected=f"{data.size_bytes} bytes, of 1 to {CHUNK_BYTES}",
            )  # fmt: skip
        key = (data.id, data.generation)
        places = self._holders.places()
        placed = places.of(data)
        writing = Writing(self._holders, placed, parts, durable=durable, again=self._written.get(key) is not None)
        short = writing.run()
        self._written.put(key, writing.stored)
        self._known.put(key, data)
        self._holders.health.count("writes")
        if short:
            self._holders.health.count("short_writes")
            self._note(Short(data, tuple(short), "shards found no place where they belong"))
        self._note_moved(places, placed)

    def _note_moved(self, before: Places, placed: Placed) -> None:
        """Note a slice whose group has moved while it was written: its shards may be where nobody looks later."""
        places = self._holders.places()
        if places is before:
            return
        now = places.of(placed.data)
        moved = tuple(index for index in range(placed.width) if now.row[index] != placed.row[index])
        if moved:
            self._note(Short(placed.data, moved, "the placement group moved during the write"))

    def make_durable(self, slices: Sequence[Slice]) -> None:
        """See SliceStore. Raises NotFoundError for one that is not there, UnavailableError for too few shards."""
        places = self._holders.places()
        wanted = [(places.of(data), self._written.get((data.id, data.generation))) for data in slices]
        where = [
            (disk, placed.shard(index))
            for placed, stored in wanted
            for index, disk in (stored or dict(enumerate(placed.row))).items()
            if places.answers(disk)
        ]
        done, errors = self._sync(where)
        for placed, _ in wanted:
            there = sum(placed.shard(index) in done for index in range(placed.width))
            if there < placed.shape.needed and self._sync_elsewhere(places, placed, done) < placed.shape.needed:
                self._refuse_sync(placed, done, errors)

    def _refuse_sync(self, placed: Placed, done: set[ShardId], errors: Sequence[StokerError]) -> None:
        there = sum(placed.shard(index) in done for index in range(placed.width))
        unknown = [error for error in errors if not isinstance(error, NotFoundError)]
        if not there and not unknown:
            raise NotFoundError("no such slice", where=placed.name)
        told = "; ".join(error.what for error in unknown[:3])
        expected = f"{placed.shape.needed} of {placed.width}"
        raise UnavailableError(
            "too few shards can be made durable", where=placed.name, expected=expected, got=f"{there}; {told}"
        )

    def _sync(self, where: Sequence[tuple[int, ShardId]]) -> tuple[set[ShardId], list[StokerError]]:
        """Make shards durable; return those that are, and what went wrong. One that is missing hides no other."""
        done: set[ShardId] = set()
        errors: list[StokerError] = []
        wanted = by_disk(where)
        synced, failed = self._holders.each({disk: Syncing(shards) for disk, shards in wanted.items()})
        done.update(shard for disk in synced for shard in wanted[disk])
        for disk, error in failed.items():
            if not isinstance(error, NotFoundError) or len(wanted[disk]) == 1:
                errors.append(error)
                continue
            for shard in wanted[disk]:
                try:
                    self._holders.call(disk, Syncing([shard]))
                    done.add(shard)
                except StokerError as single:
                    errors.append(single)
        return done, errors

    def _sync_elsewhere(self, places: Places, placed: Placed, done: set[ShardId]) -> int:
        """Make the shards durable that lie elsewhere than they were thought to; return how many are then."""
        found, _ = self._holders.search(places, placed)
        left = [(disks[0], placed.shard(i)) for i, disks in found.items() if placed.shard(i) not in done]
        done |= self._sync(left)[0]
        return sum(placed.shard(index) in done for index in range(placed.width))

    def read(self, ranges: Sequence[SliceRange]) -> list[Bytes]:
        """See SliceStore. Ranges of one slice that stand side by side are asked for together."""
        found: list[Bytes] = []
        for start in range(0, len(ranges), _RANGES_AT_ONCE):
            reading = Reading(self._holders, self._known, ranges[start : start + _RANGES_AT_ONCE])
            found += reading.run()
            for placed in reading.degraded():
                self._note(Short(placed.data, (), "a read was degraded"))
        return found

    def remove(self, slices: Sequence[Slice]) -> None:
        """See SliceStore. Raises UnavailableError when a disk that is not given up could not be asked: ask again."""
        places = self._holders.places()
        where: list[tuple[int, ShardId]] = []
        for data in slices:
            placed = places.of(data)
            every = [placed.shard(index) for index in range(placed.width)]
            disks = _known_places(placed) | self._astray.get((data.id, data.generation), set())
            disks &= places.cluster.by_id.keys()
            where += [(disk, shard) for disk in disks for shard in every]
            self._written.forget((data.id, data.generation))
            self._known.forget((data.id, data.generation))
            with self._lock:
                self._short.pop((data.id, data.generation), None)
        wanted = by_disk(where)
        asked = {disk: _removing(shards) for disk, shards in wanted.items() if places.answers(disk)}
        _, errors = self._holders.each(asked)
        silent = [disk for disk in wanted if disk not in asked and places.cluster.by_id[disk].health != "out"]
        if errors or silent:
            told = "; ".join(error.what for error in list(errors.values())[:3])
            disks_told = ", ".join(str(disk) for disk in sorted({*errors, *silent}))
            raise UnavailableError("slices are not removed everywhere", where=f"disks {disks_told}", got=told)

    def inventory(self) -> Iterator[Slice]:
        """See SliceStore: every slice that any disk has a shard of. Where shards are astray is noted for `remove`."""
        places = self._holders.places()
        last: Slice | None = None
        disks: set[int] = set()
        for disk, header, _ in self._holders.everything(places):
            shard = header.shard
            data = Slice(shard.slice_id, shard.generation, header.slice_bytes, header.storage_class)
            if last is not None and data != last:
                self._note_astray(places, last, disks)
                yield last
                disks = set()
            last = data
            disks.add(disk)
        if last is not None:
            self._note_astray(places, last, disks)
            yield last

    def _note_astray(self, places: Places, data: Slice, disks: set[int]) -> None:
        """Note where a slice has shards that follows from no map: damaged ones, say, that no repair can move home."""
        placed = places.of(data)
        astray = disks.difference(*(placed.homes(index) for index in range(placed.width)))
        if astray:  # that of a stand-in is asked anyway, and costs to find
            self._astray[data.id, data.generation] = astray
            while len(self._astray) > self.options.known_max:
                self._astray.pop(next(iter(self._astray)))
        else:
            self._astray.pop((data.id, data.generation), None)

    def close(self) -> None:
        """See SliceStore; waits for calls that are on their way."""
        self._lanes.close()

    # -- care

    def counts(self) -> Counts:
        """Return what was counted so far."""
        return self._holders.health.counts()

    def take_short(self, limit: int = 1000) -> list[Short]:
        """Return slices that need a repair, and forget them: the oldest first."""
        with self._lock:
            return [self._short.popitem(last=False)[1] for _ in range(min(limit, len(self._short)))]

    def _note(self, short: Short) -> None:
        with self._lock:
            key = (short.slice.id, short.slice.generation)
            before = self._short.get(key)
            shards = (*(before.shards if before else ()), *short.shards)
            self._short[key] = Short(short.slice, tuple(sorted(set(shards))), short.why)
            while len(self._short) > _SHORT_MAX:
                self._short.popitem(last=False)  # a pass over the inventory finds it again
        self._told(short)

    def repair_slice(self, data: Slice, *, deep: bool = False) -> Repaired:
        """Put every shard of a slice where it belongs: copied where one is left, else rebuilt from k others.

        Only when all that can be written is written are shards elsewhere removed. With `deep` every byte is read and
        verified first. Raises NotFoundError, UnavailableError, CorruptError for a slice that too few shards are left
        of.
        """
        return Repair(self._holders, self._holders.places().of(data), deep=deep).run()

    def examine(self, silent: list[int] | None = None) -> Iterator[Seen]:
        """Return each slice with its shards and how many it could lose further; raises as `inventory`.

        Who hands in a list gets what there is, and in the list the numbers of the disks that did not tell all.
        """
        places = self._holders.places()
        return seen_slices(self._holders.everything(places, silent), places)

    def look(self, data: Slice) -> tuple[Placed, Seen]:
        """Return where the shards of one slice belong and where they are; asks every disk that answers.

        Raises UsageError for a form that the map has no pool for.
        """
        places = self._holders.places()
        placed = places.of(data)
        found, _ = self._holders.search(places, placed)
        return placed, seen_at(placed, found)

    def repair_all(self, seen: Iterable[Seen] | None = None) -> list[Repaired]:
        """Repair what needs it, the slices with the fewest spare shards first; return what was done to each.

        One that cannot be repaired is told in its report and stops no other.
        """
        waiting = sorted(
            (one for one in (self.examine() if seen is None else seen) if one.needs_repair),
            key=lambda one: (one.spare, one.slice.id),
        )
        reports = []
        for one in waiting:
            try:
                reports.append(self.repair_slice(one.slice))
            except StokerError as error:
                reports.append(Repaired(one.slice, one.spare, error=str(error)))
        return reports


def _known_places(placed: Placed) -> set[int]:
    """Return the disks where shards of a slice may lie by the map."""
    return {disk for index in range(placed.width) for disk in placed.homes(index)} | set(placed.stand_ins())


def _removing(shards: Sequence[ShardId]) -> Callable[[ShardHolder], None]:
    return lambda holder: holder.remove(shards)
