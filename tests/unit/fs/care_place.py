"""A cluster in this process under virtual time: real disks, a volume as its metadata, and who cares for it."""

import random
from pathlib import Path
from typing import Any

import msgspec

from stoker.core.errors import UnavailableError
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.care.membership import Rules
from stoker.fs.care.repairs import RepairOptions
from stoker.fs.care.tending import CareOptions, Tending
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.client.garbage import collect_garbage
from stoker.fs.cluster import ClusterStore, InlineLanes
from stoker.fs.disk import Disk
from stoker.fs.disk.interface import ShardHolder, ShardId
from stoker.fs.disk.state import DiskOptions
from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.calls import MakeClass, PutMap, TakeSlices
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass, coded
from stoker.fs.place import ClusterMap
from stoker.fs.place.changing import with_disks
from stoker.fs.place.map import pack_map
from stoker.fs.place.watching import SECOND_NS, Limits
from stoker.fs.store.interface import SliceRange, SliceStore

BEGAN_NS = 1_800_000_000 * 10**9
COLD = coded("cold", 8, 4, cell_bytes=4096)
PAIR = StorageClass(0, "pair", 1, 1, 4096)


class Counted:
    """A disk, and how many bytes were read of it."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.got: list[ShardId] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)

    def get(self, shard: ShardId, ranges: Any) -> Any:
        self.got.append(shard)
        return self.disk.get(shard, ranges)


class CaredFor:
    """Disks that report each second, and masters of which the first that is alive leads."""

    def __init__(
        self,
        folder: Path,
        disks: int = 12,
        wanted: StorageClass = COLD,
        *,
        masters: int = 1,
        out_seconds: int = 60,
        **repair: Any,
    ) -> None:
        self.now = 1000.0
        self.folder = folder
        self.volume = Volume.format("memory://", clock=self.wall_ns)
        self.storage_class = self.volume.run(MakeClass(wanted)).value
        self.uuid = self.volume.settings.uuid
        self.disks: list[Counted] = []
        self.dead: set[int] = set()
        self.seq = 0
        self.runs: dict[int, str] = {}
        self.lanes = InlineLanes(lambda: self.now)
        self.classes = ClassesByNumber(self.volume)
        self.out_seconds = out_seconds
        rules = Rules(limits=Limits(out_ns=out_seconds * SECOND_NS))
        self.options = CareOptions(rules, RepairOptions(**repair))
        self.leader = 0
        self.masters = [self._master(number) for number in range(masters)]
        for _ in range(disks):
            self.add_disk()
        self.maps = MapSource(self.volume)
        self.store = ClusterStore(self.uuid, self.maps, self.holder, self.classes, self.lanes)

    def _master(self, number: int) -> Tending:
        maps = MapSource(self.volume)
        store = ClusterStore(self.uuid, maps, self.holder, self.classes, self.lanes)
        leading = lambda: self.leader == number  # noqa: E731
        return Tending(
            self.volume, store, maps, self.lanes, leading, self.options, wall_ns=self.wall_ns, collect=self.collect
        )  # fmt: skip

    def collect(self, metadata: Metadata, store: SliceStore) -> object:
        return collect_garbage(metadata, store, 60.0, now_ns=self.wall_ns())

    def wall_ns(self) -> int:
        return BEGAN_NS + int(self.now * 1e9)

    def add_disk(self) -> int:
        number = len(self.disks)
        options = DiskOptions(reserve_bytes=0)
        self.disks.append(Counted(Disk.make(self.folder / f"disk-{number:02}", self.uuid, options)))
        self.runs[number] = f"run-{number}"
        return number

    @property
    def care(self) -> Tending:
        return self.masters[self.leader]

    @property
    def map(self) -> ClusterMap:
        found = self.maps.refresh()
        assert found is not None
        return found

    def at(self, name: str) -> int:
        """Return which disk has a name."""
        return next(n for n, counted in enumerate(self.disks) if counted.disk.disk == name)

    def holder(self, number: int) -> ShardHolder:
        at = self.at(self.care.maps().by_id[number].uuid)
        if at in self.dead:
            raise UnavailableError("disk is dead", where=str(at))
        found: ShardHolder = self.disks[at]
        return found

    def beat(self, at: int, **facts: Any) -> Heartbeat:
        self.seq += 1
        disk = self.disks[at].disk
        given = {"address": f"10.0.0.{at}:1", "run": self.runs[at], "host": f"h{at:02}", **facts}
        status = msgspec.structs.replace(disk.status(), **given.pop("status", {}))
        return Heartbeat(seq=self.seq, status=status, **given)

    def live(self, seconds: float, every: float = 1.0) -> None:
        """Let time pass, in which disks that are not dead give signs of life."""
        until = self.now + seconds
        while self.now < until:
            self.now += every
            for at in set(range(len(self.disks))) - self.dead:
                for master in self.masters:
                    master.heard(self.beat(at))
            for master in self.masters:
                master.step()

    def settle(self) -> None:
        """Live until nothing is left to be repaired, and everything is where it belongs."""
        for _ in range(100):
            self.live(1)
            status = self.care.repairs.status(self.map.pools)
            if not (status.waiting or status.unsettled_groups or status.examining) and status.pass_age_seconds >= 0:
                return
        raise AssertionError(self.care.trouble, self.care.members.trouble, status)

    # -- bytes

    def written(self, count: int, size_bytes: int = 100_000) -> list[Slice]:
        first = self.volume.run(TakeSlices(count)).value
        made = [Slice(first + n, 1, size_bytes, self.storage_class) for n in range(count)]
        for data in made:
            self.store.write(data, [content(data)], durable=True)
        return made

    def readable(self, slices: list[Slice]) -> None:
        found = self.store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
        assert [bytes(part) for part in found] == [content(data) for data in slices]

    def number(self, at: int) -> int:
        """Return the number that the map has for a disk."""
        return next(disk.id for disk in self.map.disks if disk.uuid == self.disks[at].disk.disk)

    def set(self, *at: int, **facts: Any) -> None:
        """Change disks in the map, as an operator does."""
        before = self.map
        disks = [msgspec.structs.replace(before.by_id[self.number(one)], **facts) for one in at]
        made = with_disks(before, disks)
        self.volume.run(PutMap(before.epoch, made.epoch, pack_map(made)))
        self.maps.refresh()

    def health(self, at: int) -> str:
        return self.map.by_id[self.number(at)].health

    def close(self) -> None:
        assert fsck(self.volume.engine) == []
        for counted in self.disks:
            counted.disk.close()


def content(data: Slice) -> bytes:
    """Return the bytes of a slice."""
    return random.Random(f"{data.id} {data.generation}").randbytes(data.size_bytes)
