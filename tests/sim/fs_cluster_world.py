"""A whole cluster of the file system in one process, played through bad days by a seed.

    python tests/sim/fs_cluster_world.py --seed 7

plays one seed and prints what happened. Everything that decides is the product's own code; what is simulated is what
fails: see docs/design/fs_sim.md.
"""

import argparse
import hashlib
import random
import sys
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
from fs_cluster_checks import Checks
from fs_cluster_clients import Collector, Operator, User
from fs_cluster_faults import Faults
from fs_cluster_fibers import MS, SECOND, FiberLanes, Loop, Process
from fs_cluster_masters import START_NS, Journal, SimMaster, SimMasters, Snapshots, new_store
from fs_cluster_parts import ChunkServer, Network, SimDisk, SimTarget

from stoker.core.errors import StokerError
from stoker.fs.chunk.operations import Heartbeat
from stoker.fs.cluster import ClusterStore
from stoker.fs.journal.entries import Keys, Transaction, pack_transaction
from stoker.fs.journal.etcd import Put, Txn
from stoker.fs.journal.member import Role
from stoker.fs.master import daemon, remote
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.keys import class_key
from stoker.fs.meta.machine import new_volume
from stoker.fs.meta.records import unpack_references
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass, pack_class

DISKS = 12
CLASSES = (
    StorageClass(1, "coded", 4, 2, 4096, "host", 8192, 3),
    StorageClass(2, "copied", 1, 2, 4096, "host"),
    StorageClass(3, "wide", 8, 4, 4096, "host", 4096, 4),
)
SETTLE_SECONDS = 90
TRACE = 80


class World:
    """All of it."""

    def __init__(self, seed: int, *, faults: bool = True, users: int = 3) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.faults = faults
        self.quiet = False
        self.loop = Loop()
        self.counts: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.digest = hashlib.sha256()
        self.uuid = str(uuid.UUID(int=seed))
        self.references: dict[int, Slice] = {}
        self.destroyed: Counter[int] = Counter()
        self.folders: dict[str, int] = {}
        self.file_count = 0
        self.snapshots: Snapshots = []
        self.classes = {one.id: one for one in CLASSES}
        self.network = Network(self.loop, self.chance)
        self.network.faults = faults
        self.network.count = self.count
        self.checks = Checks(self)
        self.applied = self.checks.applied
        self.journal = Journal(self.loop, self.network, self.chance, Keys("sim"))
        self._begin_journal()
        self.servers: dict[str, ChunkServer] = {}
        self.hosts = 0
        for _ in range(DISKS):
            self.add_disk(f"h{len(self.servers)}")
        self.masters: list[SimMaster] = []
        for number in range(2):
            self.masters.append(SimMaster(self, Process(f"m{number}"), None))
            self.journal.masters = self.masters
            self.loop.at(number, partial(self._maintain, number))
        kinds = [1, 2, self.chance.choice([1, 3])]
        self.users = [User(self, Process(f"c{n}"), kinds[n % 3]) for n in range(users)]
        self.collector = Collector(self, Process("gc"), 0)
        self.operator = Operator(self, Process("op"), 0)
        self.bad_days = Faults(self)
        if faults:
            self.loop.at(1500 * MS, self.bad_days.next)
        self.loop.after = self.checks.each_event

    # -- what there is

    def _begin_journal(self) -> None:
        pairs = new_volume("sim", uuid.UUID(int=self.seed), START_NS, uid=0, gid=0, mode=0o777)
        pairs |= {class_key(one.id): pack_class(one) for one in CLASSES}
        record = msgspec.msgpack.encode(list(pairs.items()))
        first = pack_transaction(0, Transaction(1, START_NS, record, True))
        self.journal.state.apply(Txn(then=(Put(self.journal.keys.entry(1), first[0]),)))

    def add_disk(self, host: str) -> ChunkServer:
        """Add a disk that was never there before, with its process."""
        self.hosts += 1
        name = f"d{self.hosts}"
        name_of_disk = str(uuid.UUID(int=self.hosts))
        server = ChunkServer(Process(name), SimDisk(name_of_disk, self.uuid, self.checks, self.chance), host, self.loop)
        self.servers[name] = server
        self.loop.at(self.chance.randint(0, 100 * MS), partial(self.beat, server, server.process.life))
        return server

    def master_at(self, address: str) -> SimMaster:
        """Return the master at an address."""
        return next(master for master in self.masters if master.name == address)

    def target(self, source: Process, server: ChunkServer) -> SimTarget:
        """Return a disk as a process sees it."""
        return SimTarget(self.network, source, server, self.checks)

    def store_for(self, process: Process, maps: Any, classes: Any, lanes: FiberLanes) -> ClusterStore:
        """Return a process's store."""
        return new_store(self, process, maps, classes, lanes)

    def wall_ns(self) -> int:
        """Return the time of clients."""
        return START_NS + self.loop.now_ns

    def actor(self, process: Process, action: Any) -> None:
        """Have a process do something that never fails."""

        def run() -> None:
            try:
                action()
            except (StokerError, AssertionError):
                raise
            except Exception as error:
                raise AssertionError(f"{process.name}: {error!r}") from error

        self.loop.spawn(process, run, self.chance.randint(0, 300 * MS))

    # -- what happens of itself

    def beat(self, server: ChunkServer, life: int) -> None:
        """Have a chunk server say that it lives, over and over."""
        process = server.process
        if not process.alive or process.life != life:
            return
        if process.stopped_until_ns <= self.loop.now_ns:
            for master in self.masters:
                server.seq += 1
                beat = Heartbeat(process.name, server.run, server.seq, server.disk.status(), host=server.host)
                sent = self.loop.now_ns / 1e9
                self.network.send(
                    process.name, master.name, partial(self._heard, server, life, master.name, beat, sent)
                )
        self.loop.at(self.chance.randint(350 * MS, 450 * MS), partial(self.beat, server, life))

    def _heard(self, server: ChunkServer, life: int, name: str, beat: Heartbeat, sent: float) -> None:
        master = self.master_at(name)
        if not master.process.alive or master.process.stopped_until_ns > self.loop.now_ns:
            return
        try:
            master.heartbeat(beat)
        except StokerError:
            return

        def told() -> None:
            if server.process.life == life:
                server.fence.heard(sent)

        self.network.send(name, server.process.name, told)

    def _maintain(self, number: int) -> None:
        """Make a snapshot, or have the log forget what is in one, now and then."""
        master = self.masters[number]
        roll = self.chance.random()
        if master.process.alive and roll < 0.1 and master.core.member.number:
            position = master.core.member.state.position
            with master.core.copy.snapshot() as snapshot:
                self.snapshots.append((position, snapshot.revision, snapshot.scan(b"")))
                del self.snapshots[:-3]
        elif master.process.alive and roll < 0.2 and self.snapshots and master.core.member.role is Role.LEADING:
            floor = max(one[0].number for one in self.snapshots) + 1
            master.act(master.process.life, lambda now_ns: master.core.member.trim(floor, now_ns))
            self.count("trims")
        self.loop.at(250 * MS, partial(self._maintain, number))

    def seed_copy(self, master: SimMaster) -> None:
        """Give a master whose log begins behind its copy the newest snapshot."""
        position, revision, pairs = max(self.snapshots, key=lambda one: one[0].number)
        master.data = MemoryState()
        state = type(master.core.member.state)(MemoryEngine(master.data, f"memory://{master.name}"), self.applied)
        state.fill(pairs, revision, position)
        master.core.member.reseed(state)
        master.core.fell_behind = False
        self.count("seeds")

    def restart_master(self, number: int, *, keeps: bool) -> None:
        """Begin a master anew."""
        old = self.masters[number]
        if old.process.alive:
            return
        self.loop.begin_again(old.process)
        self.masters[number] = SimMaster(self, old.process, old.data if keeps else None)
        self.note(f"{old.name} begins again")

    def restart_disk(self, server: ChunkServer) -> None:
        """Begin a chunk server anew, unless its disk was lost meanwhile: whose disk is gone has nothing to serve."""
        if server.process.alive or self.servers.get(server.process.name) is not server:
            return
        self.loop.begin_again(server.process)
        server.begin()
        self.beat(server, server.process.life)
        self.note(f"{server.process.name} begins again")

    def restart_user(self, user: User) -> None:
        """Begin a client anew."""
        if not user.process.alive:
            self.loop.begin_again(user.process)
            user.begin()

    # -- telling

    def count(self, what: str, by: int = 1) -> None:
        """Count something."""
        self.counts[what] += by

    def note(self, text: str) -> None:
        """Keep an event for the trace and the digest."""
        line = f"{self.loop.now_ns / 1e9:10.4f} {text}"
        self.trace.append(line)
        self.digest.update(line.encode())

    # -- playing

    @contextmanager
    def _clocks(self) -> Iterator[None]:
        """Let the product's modules that look at a clock see virtual time."""

        def now_ns() -> int:
            return self.loop.now_ns

        def sleep(seconds: float) -> None:
            self.loop.sleep(int(seconds * 1e9))

        SimMasters.world = self
        with (
            mock.patch.object(remote, "monotonic_ns", now_ns),
            mock.patch.object(remote, "time", SimpleNamespace(sleep=sleep)),
            mock.patch.object(remote, "Masters", SimMasters),
            mock.patch.object(daemon, "monotonic_ns", now_ns),
        ):
            yield

    def play(self, seconds: float = 9.0) -> str:
        """Let bad days come for a while, then heal and hold all against the promises; return a digest of it all."""
        try:
            with self._clocks():
                self.loop.run(int(seconds * SECOND))
                self.heal()
                self._until("whole", self.checks.missing_to_whole)
                self.quiet = True
                self._until("tidy", self.checks.missing_to_tidy)
                self.checks.final()
                return self.digest.hexdigest()
        except BaseException as error:
            error.add_note("\n".join(["the last events:", *self.trace]))
            error.add_note(f"again: python tests/sim/fs_cluster_world.py --seed {self.seed}")
            raise
        finally:
            self.end()

    def heal(self) -> None:
        """Have nothing fail from now on; what is gone stays gone, all else begins again."""
        self.note("all is healed")
        self.faults = self.network.faults = False
        self.bad_days.heal()

    def _until(self, what: str, missing: Any) -> None:
        """Let time pass until nothing is missing. Raises AssertionError when it takes too long."""
        for _ in range(SETTLE_SECONDS):
            self.loop.run(self.loop.now_ns + SECOND)
            text = missing()
            if not text:
                self.count(f"seconds until {what}", _ + 1)
                return
        raise AssertionError(f"not {what} after {SETTLE_SECONDS} s of calm: {text}")

    def end(self) -> None:
        """End all fibers."""
        processes = [one.process for one in (*self.masters, *self.users, self.collector, self.operator)]
        for process in [*processes, *(server.process for server in self.servers.values())]:
            self.loop.kill(process)

    def reference(self, key: bytes, slice_id: int, value: bytes | None) -> None:
        """Note what the metadata say now of references to a slice."""
        if value is None:
            self.references.pop(slice_id, None)
        else:
            self.references[slice_id] = unpack_references(slice_id, value)[0]


def main() -> None:
    """Play seeds by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=9.0)
    chosen = parser.parse_args()
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        world = World(seed)
        digest = world.play(chosen.seconds)
        told = f"{seed} {digest[:16]} {world.loop.now_ns / 1e9:.0f} s {dict(sorted(world.counts.items()))}\n"
        sys.stdout.write(told)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
