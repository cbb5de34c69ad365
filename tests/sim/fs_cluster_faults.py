"""Bad days of the simulated cluster: what happens to its machines, disks, clocks and network."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fs_cluster_fibers import MS, SECOND, Process
from fs_cluster_parts import ChunkServer, Kept

from stoker.core.errors import StokerError
from stoker.fs.journal.member import Role
from stoker.fs.meta.slices import Slice


class Faults:
    """Chooses what happens next. What destroys bytes never takes a slice below what its class can lose."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.kinds: list[Callable[[], None]] = (
            [self.crash_master, self.crash_disk, self.cut] * 4
            + [self.stop, self.etcd_outage, self.rot] * 3
            + [self.crash_user, self.trouble_disk, self.jump_clock, self.lose_disk, self.storm] * 2
        )

    def next(self) -> None:
        """Have one thing happen, and the next one later."""
        if not self.world.faults:
            return
        kind = self.world.chance.choice(self.kinds)
        kind()
        self.world.count(kind.__name__)
        self.world.loop.at(self.world.chance.randint(30 * MS, 700 * MS), self.next)

    def _server(self) -> ChunkServer:
        found: ChunkServer = self.world.chance.choice(list(self.world.servers.values()))
        return found

    def _anybody(self) -> Process:
        world = self.world
        found: Process = world.chance.choice(
            [one.process for one in (*world.masters, *world.users, *world.servers.values())]
        )
        return found

    def _for_a_while(self) -> int:
        """Return nanoseconds: mostly short, now and then long enough that somebody is given up."""
        chance = self.world.chance
        longest = chance.choice([300, 1500, 1500, 4000, 10_000])
        return int(chance.randint(20, longest) * MS)

    # -- processes

    def crash_master(self) -> None:
        """End a master, the leader if it can be."""
        world = self.world
        leaders = [n for n, one in enumerate(world.masters) if one.core.member.role is not Role.FOLLOWING]
        number = world.chance.choice(leaders) if leaders and world.chance.random() < 0.7 else world.chance.randrange(2)
        master = world.masters[number]
        if master.process.alive:
            world.note(f"{master.name} crashes")
            world.loop.kill(master.process)
            keeps = world.chance.random() < 0.8
            world.loop.at(self._for_a_while() // 4, partial(world.restart_master, number, keeps=keeps))

    def crash_disk(self) -> None:
        """End a chunk server; with a power failure what was not synced is lost."""
        server = self._server()
        if server.process.alive:
            power = self.world.chance.random() < 0.7
            self.world.note(f"{server.process.name} crashes{', its power fails' if power else ''}")
            self.world.loop.kill(server.process)
            if power:
                server.disk.power_failure()
            self.world.loop.at(self._for_a_while(), partial(self.world.restart_disk, server))

    def crash_user(self) -> None:
        """End a client."""
        user = self.world.chance.choice(self.world.users)
        if user.process.alive:
            self.world.note(f"{user.process.name} crashes")
            self.world.loop.kill(user.process)
            self.world.loop.at(self._for_a_while() // 4, partial(self.world.restart_user, user))

    def stop(self) -> None:
        """Have a process stand still."""
        process = self._anybody()
        process.stopped_until_ns = self.world.loop.now_ns + self.world.chance.randint(50, 2500) * MS
        self.world.note(f"{process.name} stands still")

    def storm(self) -> None:
        """Crash several disks at once, all with their power."""
        for _ in range(self.world.chance.randint(2, 4)):
            self.crash_disk()

    def jump_clock(self) -> None:
        """Set a master's clock."""
        master = self.world.chance.choice(self.world.masters)
        master.skew_ns = self.world.chance.randint(-2000, 2000) * MS
        self.world.note(f"the clock of {master.name} jumps")

    # -- the network

    def cut(self) -> None:
        """Cut somebody off: from all or from one, in one direction or both."""
        world = self.world
        one = self._anybody().name
        other = world.chance.choice(["*", "*", "etcd", self._anybody().name])
        until_ns = world.loop.now_ns + self._for_a_while() // 2
        ways = world.chance.choice([(True, False), (False, True), (True, True)])
        if ways[0]:
            world.network.cut(one, other, until_ns)
        if ways[1]:
            world.network.cut(other, one, until_ns)
        world.note(f"{one} is cut from {other}, {ways}")

    def etcd_outage(self) -> None:
        """Let nobody lead the etcd for a while."""
        self.world.journal.down_until_ns = self.world.loop.now_ns + self.world.chance.randint(100, 1500) * MS
        self.world.note("etcd has no leader")

    # -- disks

    def trouble_disk(self) -> None:
        """Make a disk slow, full or read-only for a while."""
        server, now_ns = self._server(), self.world.loop.now_ns
        kind = self.world.chance.choice(["slow", "full", "read-only"])
        self.world.note(f"{server.process.name} is {kind}")
        if kind == "slow":
            server.slow_until_ns = now_ns + self._for_a_while()
            return
        if kind == "full":
            server.disk.full = True
        else:
            server.disk.read_only = "input/output error"
        self.world.loop.at(self._for_a_while(), partial(self._well_again, server))

    def _well_again(self, server: ChunkServer) -> None:
        server.disk.full, server.disk.read_only = False, ""

    def rot(self) -> None:
        """Have some shards change on a disk, each of a slice that can lose one."""
        server = self._server()
        names = sorted(server.disk.kept)
        for shard in self.world.chance.sample(names, min(len(names), 3)):
            kept = server.disk.kept[shard]
            if kept.sound and kept.data and self._may_lose(kept):
                place = self.world.chance.randrange(len(kept.data))
                kept.data = kept.data[:place] + bytes([kept.data[place] ^ 1]) + kept.data[place + 1 :]
                kept.sound = False
                self.world.destroyed[shard.slice_id] += 1
                self.world.note(f"{shard} rots on {server.process.name}")
                self.world.count("rotten shards")
                self.world.checks.changed(shard)

    def lose_disk(self) -> None:
        """Lose a disk for good, if all that is on it can be lost; a new one takes its place."""
        server = self._server()
        if not all(self._may_lose(kept) for kept in server.disk.kept.values() if kept.sound):
            self.world.count("disks too dear to lose")
            return
        self.world.note(f"{server.process.name} is lost with {len(server.disk.kept)} shards")
        self.world.loop.kill(server.process)
        del self.world.servers[server.process.name]
        shards = list(server.disk.kept)
        for shard in shards:
            self.world.destroyed[shard.slice_id] += server.disk.kept[shard].sound
        server.disk.kept.clear()
        for shard in shards:
            self.world.checks.changed(shard)
        self.world.count("lost disks")
        self.world.add_disk(server.host)

    def _may_lose(self, kept: Kept) -> bool:
        shard, header = kept.header.shard, kept.header
        data = Slice(shard.slice_id, shard.generation, header.slice_bytes, header.storage_class)
        left = self.world.checks.indexes(data, durable=True, without=kept)
        there = self.world.checks.indexes(data, durable=True)
        return len(left) >= header.k or len(there) < header.k

    # -- the end

    def heal(self) -> None:
        """Begin again what is down; find what has rotted."""
        world = self.world
        world.network.cuts.clear()
        world.journal.down_until_ns = 0
        for number, master in enumerate(world.masters):
            master.process.stopped_until_ns = 0
            world.restart_master(number, keeps=True)
        for server in world.servers.values():
            server.process.stopped_until_ns = server.slow_until_ns = 0
            self._well_again(server)
            server.disk.scrub()
            world.restart_disk(server)
        for user in world.users:
            user.process.stopped_until_ns = 0
            world.restart_user(user)
        world.actor(world.operator.process, self._undrain)

    def _undrain(self) -> None:
        operator = self.world.operator
        metadata, _ = operator.opened()
        while not self.world.quiet:
            with suppress(StokerError):
                operator.turn(metadata, only_back=True)
            self.world.loop.sleep(SECOND)
