"""A small cluster in this process: holders in memory that check what a disk checks, a clock that tests move."""

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from stoker.core.errors import (
    AlreadyExistsError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from stoker.fs.cluster import ClusterStore, InlineLanes, Options
from stoker.fs.cluster.lanes import Task
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.interface import (
    Bytes,
    HolderStatus,
    ScrubStatus,
    ShardHeader,
    ShardHolder,
    ShardId,
    ShardPage,
    check_header,
)
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass, coded
from stoker.fs.place import ClusterMap, Disk, new_map
from stoker.fs.place.changing import settled, with_disks
from stoker.fs.store.interface import SliceRange

VOLUME = "0" * 8 + "-0000-4000-8000-" + "0" * 12
COLD = msgspec.structs.replace(coded("cold", 8, 4, cell_bytes=4096), id=1)
PAIR = StorageClass(2, "pair", 1, 1, 4096)
THREE = StorageClass(3, "three", 1, 2, 4096, acknowledge="k+1")
SINGLE = StorageClass(0, "single", cell_bytes=4096)
CLASSES = {one.id: one for one in (SINGLE, COLD, PAIR, THREE)}


class MemoryHolder(ShardHolder):
    """Shards in memory: verified when they come and when they go, as on a disk."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.shards: dict[ShardId, tuple[ShardHeader, bytearray]] = {}
        self.room_bytes = 1 << 40
        self.broken = ""
        self.seconds = 0.0
        self.sleep: Callable[[float], None] = lambda _: None
        self.calls: list[str] = []
        self.got_bytes = 0

    def _called(self, what: str) -> None:
        self.calls.append(what)
        self.sleep(self.seconds)
        if self.broken:
            raise UnavailableError("holder is broken", where=str(self.number), got=self.broken)

    def _held(self, shard: ShardId) -> tuple[ShardHeader, bytearray]:
        if shard not in self.shards:
            raise NotFoundError("no such shard", where=str(shard))
        return self.shards[shard]

    def _sound(self, shard: ShardId) -> bool:
        header, data = self.shards[shard]
        return cell_crcs([data], header.cell_bytes) == header.crcs

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        self._called("put")
        check_header(header)
        data = bytearray(b"".join(parts))
        if header.volume != VOLUME:
            raise UsageError("shard is of another volume")
        if len(data) != header.shard_bytes or cell_crcs([data], header.cell_bytes) != header.crcs:
            raise CorruptError("shard does not fit its checksums", where=str(header.shard))
        there = self.shards.get(header.shard)
        if there is not None and there[0] != header and self._sound(header.shard):
            raise AlreadyExistsError("shard is there with other bytes", where=str(header.shard))
        if there is None and len(data) > self.room_bytes:
            raise NoSpaceError("disk is full", where=str(self.number))
        self.room_bytes -= 0 if there else len(data)
        self.shards[header.shard] = (header, data)

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        self._called("get")
        header, data = self._held(shard)
        cell = header.cell_bytes
        for offset, length in ranges:
            if not 0 <= offset <= offset + length <= len(data):
                raise UsageError("range leaves the shard")
            for at in range(offset // cell, -(-(offset + length) // cell)):
                if int.from_bytes(cell_crcs([data[at * cell : (at + 1) * cell]], cell), "big") != header.crc(at):
                    raise CorruptError("cell does not fit its checksum", where=f"{shard} cell {at}")
        self.got_bytes += sum(length for _, length in ranges)
        return [bytes(data[offset : offset + length]) for offset, length in ranges]

    def header(self, shard: ShardId) -> ShardHeader:
        self._called("header")
        return self._held(shard)[0]

    def sync(self, shards: Sequence[ShardId]) -> None:
        self._called("sync")
        for shard in shards:
            self._held(shard)

    def remove(self, shards: Sequence[ShardId]) -> None:
        self._called("remove")
        for shard in shards:
            if shard in self.shards:
                self.room_bytes += len(self.shards.pop(shard)[1])

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        self._called("listing")
        names = sorted(name for name in self.shards if after is None or name > after)
        headers = [msgspec.structs.replace(self.shards[name][0], crcs=b"") for name in names[:limit]]
        return ShardPage(headers, [], len(names) > limit, True)

    def status(self) -> HolderStatus:
        used = sum(len(data) for _, data in self.shards.values())
        return HolderStatus(
            VOLUME, str(self.number), 1, 1 << 40, self.room_bytes, used, len(self.shards), 0, 0, True, "", ScrubStatus()
        )  # fmt: skip


class VirtualTask:
    """A call that has run, whose end lies in the future."""

    def __init__(self, ends: float, value: Any, error: Exception | None, lanes: "VirtualLanes") -> None:
        self.ends = ends
        self._value = value
        self._error = error
        self._lanes = lanes

    def done(self) -> bool:
        return self.ends <= self._lanes.now

    def result(self) -> Any:
        assert self.done()
        if self._error is not None:
            raise self._error
        return self._value


class VirtualLanes:
    """Calls that take the time they say, on a clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self._inside: float | None = None

    def sleep(self, seconds: float) -> None:
        if self._inside is None:
            self.now += seconds
        else:
            self._inside += seconds

    def clock(self) -> float:
        return self.now if self._inside is None else self._inside

    def begin(self, call: Callable[[], Any]) -> VirtualTask:
        outer, self._inside = self._inside, self.clock()
        value, error = None, None
        try:
            value = call()
        except Exception as raised:
            error = raised
        ends, self._inside = self._inside, outer
        return VirtualTask(ends, value, error, self)

    def wait(self, tasks: Collection[Task], seconds: float | None) -> None:
        ends = min(task.ends for task in tasks if isinstance(task, VirtualTask))
        limit = ends if seconds is None else min(ends, self.now + seconds)
        self.now = max(self.now, limit)

    def close(self) -> None:
        pass


class Cluster:
    """Disks, their map, and a store over them."""

    def __init__(self, disks: int = 12, *, lanes: Any = None, options: Options | None = None, spare: int = 0) -> None:
        self.lanes = lanes or InlineLanes(lambda: self.now)
        self.now = 0.0
        self.holders: dict[int, Any] = {number: MemoryHolder(number) for number in range(disks + spare)}
        if isinstance(self.lanes, VirtualLanes):
            for holder in self.holders.values():
                holder.sleep = self.lanes.sleep
        self.map: ClusterMap = new_map([Disk(n, 100, f"h{n:02}") for n in range(disks)], CLASSES.values())
        self.store = self.opened(options)

    def opened(self, options: Options | None = None) -> ClusterStore:
        return ClusterStore(VOLUME, lambda: self.map, self.holder, CLASSES.__getitem__, self.lanes, options)

    def holder(self, number: int) -> ShardHolder:
        found: ShardHolder = self.holders[number]
        return found

    def set(self, *numbers: int, **facts: Any) -> None:
        """Change how disks fare in the map."""
        known = self.map.by_id
        self.map = with_disks(self.map, [msgspec.structs.replace(known[number], **facts) for number in numbers])

    def wipe(self, *numbers: int) -> None:
        """Replace disks by empty ones of the same numbers."""
        for number in numbers:
            fresh = MemoryHolder(number)
            fresh.sleep = self.holders[number].sleep
            self.holders[number] = fresh

    def settle(self) -> None:
        """Forget all former places, as a master does when everything has moved."""
        for pool in self.map.pools:
            self.map = settled(self.map, *pool.key, range(pool.groups))  # type: ignore[arg-type]

    def rot(self, number: int, data: Slice) -> list[ShardId]:
        """Change a bit of every shard of a slice on a disk."""
        names = [name for name in self.holders[number].shards if name.slice_id == data.id]
        for name in names:
            content = self.holders[number].shards[name][1]
            if content:
                content[len(content) // 2] ^= 1
        return names


def content(data: Slice) -> bytes:
    """Return the bytes of a slice."""
    return random.Random(f"{data.id} {data.generation}").randbytes(data.size_bytes)


def written(store: ClusterStore, *slices: Slice, durable: bool = True) -> None:
    """Write slices."""
    for data in slices:
        store.write(data, [content(data)], durable=durable)


def readable(store: ClusterStore, *slices: Slice) -> None:
    """Assert that slices are read whole."""
    found = store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
    assert [bytes(part) for part in found] == [content(data) for data in slices]
