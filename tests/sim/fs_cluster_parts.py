"""Parts of the simulated cluster: the network, disks that lose what was not synced, and chunk servers over them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fs_cluster_fibers import MS, SECOND, Loop, Process

from stoker.core.errors import (
    AlreadyExistsError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    StokerError,
    StoreError,
    UnavailableError,
    UsageError,
)
from stoker.fs.chunk.fencing import Fence
from stoker.fs.disk.checksums import cell_crcs, check_parts
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

CAPACITY_BYTES = 4 << 30


class Network:
    """Who reaches whom, how late, and what gets lost. Cuts are of one direction."""

    def __init__(self, loop: Loop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.faults = True
        self.cuts: dict[tuple[str, str], int] = {}
        self.count: Callable[[str], None] = lambda _: None

    def cut(self, source: str, target: str, until_ns: int) -> None:
        """Let nothing through from one to another for a while; `*` is everybody."""
        self.cuts[source, target] = until_ns

    def _is_cut(self, source: str, target: str) -> bool:
        pairs = ((source, target), (source, "*"), ("*", target))
        return self.faults and any(self.cuts.get(pair, 0) > self.loop.now_ns for pair in pairs)

    def delay(self, source: str, target: str) -> int | None:
        """Return how long a message takes, None for one that is lost."""
        if self._is_cut(source, target):
            return None
        roll = self.chance.random()
        if self.faults and roll < 0.008:
            return None
        if self.faults and roll < 0.03:
            return self.chance.randint(20 * MS, 1500 * MS)
        return self.chance.randint(MS // 5, 3 * MS)

    def send(self, source: str, target: str, action: Callable[[], object]) -> None:
        """Have something done where a message arrives, if it does; now and then twice."""
        delay_ns = self.delay(source, target)
        if delay_ns is None:
            self.count("lost messages")
            return
        self.loop.at(delay_ns, action)
        if self.faults and self.chance.random() < 0.006:
            self.count("doubled messages")
            self.loop.at(delay_ns + self.chance.randint(MS, 900 * MS), action)

    def call(
        self, source: Process, target: Process, work: Callable[[], Any], within_ns: int, *, blocks: bool = False
    ) -> Any:
        """Have `work` done by another process and return what it gives; called in a fiber.

        Raises UnavailableError when no answer comes in time: whether it was done is not known then.
        """
        box: list[tuple[Any, StokerError | None]] = []
        mark = self.loop.mark()

        def settle(value: Any, error: StokerError | None) -> None:
            if not box:
                box.append((value, error))
                self.loop.resume(*mark)

        def reply(value: Any, error: StokerError | None) -> None:
            self.send(target.name, source.name, partial(settle, value, error))

        def do() -> None:
            try:
                value = work()
            except StokerError as error:
                reply(None, error)
            else:
                reply(value, None)

        def arrive() -> None:
            asleep_ns = target.stopped_until_ns - self.loop.now_ns
            if not target.alive:
                reply(None, UnavailableError("nobody listens", where=target.name))
            elif asleep_ns > 0:
                self.loop.at(asleep_ns, arrive)
            elif blocks:
                self.loop.spawn(target, do)
            else:
                do()

        self.send(source.name, target.name, arrive)
        self.loop.at(within_ns, partial(settle, None, UnavailableError("no answer came in time", where=target.name)))
        self.loop.park()
        value, error = box[0]
        if error is not None:
            raise error
        return value


@dataclass
class Kept:
    """A shard on a disk."""

    header: ShardHeader
    data: bytes
    durable: bool
    sound: bool = True
    known_bad: bool = False


class Witness(Protocol):
    """Who is told of what happens to shards, and holds it against the promises."""

    def changed(self, shard: ShardId) -> None:
        """Note that a shard has come, gone, or become durable."""

    def removing(self, shard: ShardId, source: str) -> None:
        """Note that somebody removes a shard."""


class SimDisk:
    """A disk in memory that keeps what was synced: `ShardHolder` as the one that lies on files."""

    def __init__(self, uuid: str, volume: str, witness: Witness, chance: random.Random) -> None:
        self.uuid = uuid
        self.volume = volume
        self.kept: dict[ShardId, Kept] = {}
        self.full = False
        self.read_only = ""
        self._witness = witness
        self._chance = chance

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        """Store a shard, not durable yet."""
        check_header(header)
        if header.volume != self.volume:
            raise UsageError("shard is of another volume", where=str(header.shard))
        check_parts(header, parts)
        there = self.kept.get(header.shard)
        if there is not None and there.header != header:
            raise AlreadyExistsError("shard is there with other bytes", where=f"{header.shard} on {self.uuid}")
        if there is not None and not there.known_bad:
            return
        if self.read_only:
            raise StoreError("disk takes no writes", where=self.uuid, got=self.read_only)
        if self.full:
            raise NoSpaceError("disk is full", where=self.uuid)
        self.kept[header.shard] = Kept(header, b"".join(bytes(part) for part in parts), durable=False)
        self._witness.changed(header.shard)

    def _found(self, shard: ShardId) -> Kept:
        there = self.kept.get(shard)
        if there is None:
            raise NotFoundError("no such shard", where=f"{shard} on {self.uuid}")
        return there

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """Return ranges, verified."""
        there = self._found(shard)
        for offset, length in ranges:
            if offset < 0 or length < 0 or offset + length > there.header.shard_bytes:
                raise UsageError("range leaves the shard", where=str(shard), got=f"{offset}+{length}")
        if not there.sound and cell_crcs([there.data], there.header.cell_bytes) != there.header.crcs:
            there.known_bad = True
            raise CorruptError("bytes of a shard do not fit its checksum", where=f"{shard} on disk {self.uuid}")
        return [there.data[offset : offset + length] for offset, length in ranges]

    def header(self, shard: ShardId) -> ShardHeader:
        """Return a header."""
        return self._found(shard).header

    def sync(self, shards: Sequence[ShardId]) -> None:
        """Make shards durable."""
        for shard in shards:
            self._found(shard)
        for shard in shards:
            self.kept[shard].durable = True
            self._witness.changed(shard)

    def remove(self, shards: Sequence[ShardId]) -> None:
        """Remove shards, durably."""
        for shard in shards:
            if self.kept.pop(shard, None) is not None:
                self._witness.changed(shard)

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        """Return a page of headers."""
        names = sorted(shard for shard in self.kept if after is None or shard > after)
        some = [self.kept[shard] for shard in names[:limit]]
        bad = [kept.header.shard for kept in some if kept.known_bad]
        headers = [kept.header for kept in some]
        return ShardPage(headers, bad, len(names) > limit, complete=True)

    def status(self) -> HolderStatus:
        """Return how it fares."""
        free_bytes = 0 if self.full else CAPACITY_BYTES
        bad = sum(kept.known_bad for kept in self.kept.values())
        return HolderStatus(
            self.volume, self.uuid, 1, CAPACITY_BYTES, free_bytes, 0, len(self.kept), bad, 0, True, self.read_only,
            ScrubStatus(),
        )  # fmt: skip

    # -- bad days

    def power_failure(self) -> None:
        """Lose what was not synced; now and then some of it got to the disk by itself."""
        for shard, kept in list(self.kept.items()):
            if not kept.durable and self._chance.random() < 0.8:
                del self.kept[shard]
                self._witness.changed(shard)

    def scrub(self) -> None:
        """Find what has rotted."""
        for kept in self.kept.values():
            kept.known_bad = not kept.sound


class ChunkServer:
    """The process of a disk: it reports, and takes writes only while masters answer."""

    def __init__(self, process: Process, disk: SimDisk, host: str, loop: Loop) -> None:
        self.process = process
        self.disk = disk
        self.host = host
        self.loop = loop
        self.slow_until_ns = 0
        self.run = ""
        self.seq = 0
        self.fence = Fence(lambda: loop.now_ns / 1e9, active=True)
        self.begin()

    def begin(self) -> None:
        """Begin a run of the process."""
        self.run = f"{self.process.name}-{self.process.life}"
        self.seq = 0
        self.fence = Fence(lambda: self.loop.now_ns / 1e9, active=True)

    def later(self, chance: random.Random) -> None:
        """Take the time that a disk takes; called in a fiber."""
        if self.slow_until_ns > self.loop.now_ns:
            self.loop.sleep(chance.randint(50 * MS, 700 * MS))
        else:
            self.loop.sleep(chance.randint(MS // 10, 4 * MS))


class SimTarget(ShardHolder):
    """A chunk server's disk as a process elsewhere sees it."""

    def __init__(self, network: Network, source: Process, server: ChunkServer, witness: Witness) -> None:
        self._network = network
        self._source = source
        self._server = server
        self._witness = witness

    def _call(self, work: Callable[[], Any], *, blocks: bool = False) -> Any:
        slow = self._server.slow_until_ns > self._network.loop.now_ns
        if slow and not blocks:
            return self._call(lambda: (self._server.later(self._network.chance), work())[1], blocks=True)
        return self._network.call(self._source, self._server.process, work, 2 * SECOND, blocks=blocks)

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        """See ShardHolder."""
        server = self._server
        data = [bytes(part) for part in parts]

        def work() -> None:
            server.fence.check("put")
            server.disk.put(header, data, durable=False)
            if durable:
                server.later(self._network.chance)
                server.disk.sync([header.shard])

        self._call(work, blocks=durable)

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """See ShardHolder."""
        found: list[Bytes] = self._call(lambda: self._server.disk.get(shard, ranges))
        return found

    def header(self, shard: ShardId) -> ShardHeader:
        """See ShardHolder."""
        found: ShardHeader = self._call(lambda: self._server.disk.header(shard))
        return found

    def sync(self, shards: Sequence[ShardId]) -> None:
        """See ShardHolder."""
        server = self._server

        def work() -> None:
            server.later(self._network.chance)
            server.disk.sync(shards)

        self._call(work, blocks=True)

    def remove(self, shards: Sequence[ShardId]) -> None:
        """See ShardHolder."""
        server = self._server

        def work() -> None:
            server.fence.check("remove")
            for shard in shards:
                self._witness.removing(shard, self._source.name)
            server.disk.remove(shards)

        self._call(work)

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        """See ShardHolder."""
        found: ShardPage = self._call(lambda: self._server.disk.listing(after, limit))
        return found

    def status(self) -> HolderStatus:
        """See ShardHolder."""
        found: HolderStatus = self._call(self._server.disk.status)
        return found
